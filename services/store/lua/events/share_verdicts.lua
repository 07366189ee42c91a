#!lua flags=allow-oom
-- Stores verdicts that many events have in common, once for all of them. Returns OK.
-- KEYS: verdicts
-- ARGV: value, life_seconds

return redis.call('SET', verdicts, value, 'EX', life_seconds)
