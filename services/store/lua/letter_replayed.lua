#!lua flags=allow-oom
-- Removes a dead letter that is being replayed. Its attempts and its first failure are remembered for `memory_seconds`,
-- in case it comes back. Returns 1, or 0 without a change if it has come back since it was read.
-- USES: expect
-- KEYS: letters, record
-- ARGV: id, last_failed, memory_seconds

expect('zset', letters)
expect('hash', record)
if redis.call('HGET', record, 't') ~= last_failed then return 0 end
redis.call('ZREM', letters, id)
redis.call('HDEL', record, 'l', 'c', 'r', 't')
redis.call('EXPIRE', record, memory_seconds)
return 1
