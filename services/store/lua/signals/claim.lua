-- Notes that a signal is about to be applied to a run in the wait of `stay`; `mark` is JSON without an outcome.
-- Returns 1; 0 if the signal is neither open nor late, if `token` no longer holds the lease, or if the signal is for
-- one run and another has it; -1 if the run was restored from a backup and no executor has settled it yet. An open
-- signal becomes due again after `look_again_ms`: its claimer may die before it decides, and a buffered signal is not
-- due before it expires.
-- USES: signals, restored
-- KEYS: record, run_signals, stay, lease, late
-- ARGV: id, run_id, mark, retention_ms, token, deliver, look_again_ms

expect('hash', record)
expect('zset', run_signals, late)
expect('string', stay, lease)
expect('set', RESTORED_RUNS)
local status = redis.call('HGET', record, 'status')
if status ~= 'received' and status ~= 'buffered' and not redis.call('ZSCORE', late, id) then return 0 end
if redis.call('GET', lease) ~= token then return 0 end
if redis.call('SISMEMBER', RESTORED_RUNS, run_id) == 1 then return -1 end
local place = tonumber(redis.call('HGET', record, 'place') or '')
if not place then expect('signal', record) end
if deliver == 'one' then
  local fields = redis.call('HGETALL', record)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 4) == 'run:' and fields[i] ~= 'run:' .. run_id then
      local outcome = cjson.decode(fields[i + 1])['outcome']
      if outcome == cjson.null or outcome == 'applied' then return 0 end
    end
  end
end
redis.call('HSET', record, 'run:' .. run_id, mark)
redis.call('ZADD', run_signals, place, id)
redis.call('PEXPIRE', run_signals, retention_ms)
redis.call('SET', stay, id, 'PX', retention_ms)
redis.call('ZADD', OPEN_SIGNALS, 'XX', clock_ms() + look_again_ms, id)
return 1
