-- Keeps an open signal until it expires. Returns 1, 0 if it is not open, or -1 if `most_buffered` signals are kept.
-- USES: signals
-- KEYS: record
-- ARGV: id, expires_ms, most_buffered, reason

expect_signal(record)
local status = redis.call('HGET', record, 'status')
if not is_open(status) then return 0 end
redis.call('ZADD', OPEN_SIGNALS, expires_ms, id)
if status == 'buffered' then return 1 end
if redis.call('ZCARD', BUFFERED) >= tonumber(most_buffered) then return -1 end
redis.call('HSET', record, 'status', 'buffered', 'reason', reason)
log(record, 'buffered', reason)
redis.call('ZADD', BUFFERED, expires_ms, id)
redis.call('XADD', OUTBOX, '*', 'id', id, 'status', 'buffered')
redis.call('PUBLISH', TOLD .. id, 'buffered')
return 1
