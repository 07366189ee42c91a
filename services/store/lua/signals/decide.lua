-- Gives a signal its outcome. With a `late_ms` above 0 it stays among the late signals of its key for that time.
-- Returns 1, or 0 if it has an outcome already or, with `await_claims` '1', is being applied to a run.
-- USES: signals
-- KEYS: record, target, late
-- ARGV: id, outcome, reason, retention_ms, late_ms, await_claims

expect_signal(record)
expect('zset', target, late)
if not is_open(redis.call('HGET', record, 'status')) then return 0 end
local received_ms = tonumber(redis.call('HGET', record, 'received') or '')
if not received_ms then expect('signal', record) end
if await_claims == '1' then
  local fields = redis.call('HGETALL', record)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 4) == 'run:' and cjson.decode(fields[i + 1])['outcome'] == cjson.null then return 0 end
  end
end
redis.call('HSET', record, 'status', outcome, 'reason', reason, 'decided', clock_ms())
log(record, outcome, reason)
redis.call('PEXPIRE', record, retention_ms)
redis.call('ZREM', OPEN_SIGNALS, id)
redis.call('ZREM', BUFFERED, id)
redis.call('ZREM', target, id)
if tonumber(late_ms) > 0 then
  redis.call('ZADD', late, received_ms, id)
  redis.call('ZREMRANGEBYSCORE', late, '-inf', received_ms - late_ms)
  redis.call('PEXPIRE', late, late_ms)
end
redis.call('XADD', OUTBOX, '*', 'id', id, 'status', outcome)
redis.call('PUBLISH', TOLD .. id, outcome)
return 1
