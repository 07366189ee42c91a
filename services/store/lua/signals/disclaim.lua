-- Withdraws a claim, because the signal is for another wait. Returns 1.
-- USES: expect
-- KEYS: record, run_signals, stay
-- ARGV: id, run_id

expect('hash', record)
expect('zset', run_signals)
expect('string', stay)
redis.call('HDEL', record, 'run:' .. run_id)
redis.call('ZREM', run_signals, id)
if redis.call('GET', stay) == id then redis.call('DEL', stay) end
return 1
