-- Records the end of a wait that came from no signal as a signal with that outcome. Returns 1, or 0 if it is recorded
-- already.
-- USES: signals
-- KEYS: record, run_signals
-- ARGV: id, signal, origin, run_id, mark, outcome, reason, at_ms, retention_ms

expect_signal(record)
expect('zset', run_signals)
if redis.call('EXISTS', record) == 1 then return 0 end
local place = redis.call('INCR', SEQUENCE)
redis.call('HSET', record, 'signal', signal, 'origin', origin, 'place', place, 'received', at_ms,
  'decided', at_ms, 'status', outcome, 'reason', reason, 'run:' .. run_id, mark)
log(record, outcome, reason)
redis.call('PEXPIRE', record, retention_ms)
redis.call('ZADD', INDEX, place, id)
redis.call('ZADD', run_signals, place, id)
redis.call('PEXPIRE', run_signals, retention_ms)
redis.call('XADD', OUTBOX, '*', 'id', id, 'status', outcome)
return 1
