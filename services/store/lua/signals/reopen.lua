-- Opens a signal again, in its old place in the order, because Prefect lost its effect. `mark` is JSON without an
-- outcome.
-- Returns 1, or 0 if the signal is unknown.
-- USES: signals
-- KEYS: record, target
-- ARGV: id, run_id, mark, reason

expect_signal(record)
expect('zset', target)
local place = redis.call('HGET', record, 'place')
if not place then return 0 end
redis.call('HSET', record, 'run:' .. run_id, mark, 'status', 'received', 'reason', reason)
redis.call('HDEL', record, 'decided')
redis.call('PERSIST', record)
log(record, 'received', reason)
redis.call('ZADD', OPEN_SIGNALS, clock_ms(), id)
redis.call('ZADD', target, place, id)
return 1
