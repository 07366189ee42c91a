#!lua flags=allow-oom
-- Keeps the verdicts that many events have in common.
-- KEYS: verdicts
-- ARGV: value, life_seconds

return redis.call('SET', verdicts, value, 'EX', life_seconds)
