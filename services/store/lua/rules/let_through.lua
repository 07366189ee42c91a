#!lua flags=allow-oom
-- Notes which entries of a rule's queues its rate lets pass now; the log goes when nothing was added for `life_ms`.
-- KEYS: log
-- ARGV: now_ms, life_ms, entries[entry]

for entry in entries() do redis.call('ZADD', log, 'NX', now_ms, entry) end
return redis.call('PEXPIRE', log, life_ms)
