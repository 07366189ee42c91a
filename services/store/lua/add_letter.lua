-- Keeps a dead letter; if one with this id exists, counts a further attempt instead. Returns the number of attempts.
-- USES: expect
-- KEYS: letters, record
-- ARGV: id, letter, code, reason, last_failed, last_failed_ms, first_failed

expect('zset', letters)
expect('hash', record)
local attempts = redis.call('HINCRBY', record, 'n', 1)
redis.call('ZADD', letters, last_failed_ms, id)
redis.call('HSETNX', record, 'l', letter)
redis.call('HSETNX', record, 'f', first_failed)
redis.call('HSET', record, 'c', code, 'r', reason, 't', last_failed)
redis.call('PERSIST', record)
return attempts
