#!lua flags=allow-oom
-- Notes which entries of a rule's queues its rate allows now. The log expires `life_ms` after the last addition.
-- Returns 1, or 0 if the log is empty.
-- KEYS: log
-- ARGV: now_ms, life_ms, entries[entry]

for entry in entries() do redis.call('ZADD', log, 'NX', now_ms, entry) end
return redis.call('PEXPIRE', log, life_ms)
