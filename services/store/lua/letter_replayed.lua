#!lua flags=allow-oom
-- Takes a letter away that is tried again; for `memory_seconds` its attempts and its beginning are known, should it
-- come back. Returns 0, and nothing is done, where it has come back since it was read.
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
