-- Accepts a signal, once by its id. Returns {1 if it is new, otherwise 0; its status}. It becomes due again after
-- `look_again_ms`, in case its job is lost; repetitions are logged up to `most_repeats`.
-- USES: signals
-- KEYS: record, target
-- ARGV: id, signal, origin, look_again_ms, most_repeats

expect_signal(record)
expect('zset', target)
local known = redis.call('HGET', record, 'status')
if known then
  if redis.call('HEXISTS', record, 'signal') == 0 then expect('signal', record) end
  if redis.call('HINCRBY', record, 'repeats', 1) <= tonumber(most_repeats) then
    log(record, 'duplicate', 'the same id came again, by ' .. origin)
    redis.call('XADD', OUTBOX, '*', 'id', id, 'status', 'duplicate')
  end
  return {0, known}
end
local now_ms = clock_ms()
local place = redis.call('INCR', SEQUENCE)
redis.call('HSET', record, 'signal', signal, 'origin', origin, 'place', place, 'received', now_ms,
  'status', 'received', 'reason', '')
log(record, 'received', origin)
redis.call('ZADD', INDEX, place, id)
redis.call('ZADD', OPEN_SIGNALS, now_ms + look_again_ms, id)
redis.call('ZADD', target, place, id)
return {1, 'received'}
