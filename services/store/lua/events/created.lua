#!lua flags=allow-oom
-- Removes a created run from its dispatch queue and stores the run with the events (JSON [[identity, position]]) that
-- led to it. `planned_ms` is '' or the time before which the run does not start. If no state of the new run becomes
-- known, Prefect is asked for it after `first_check_ms`, or after `check_ms_each` for each active run if that is
-- longer.
-- Returns 1, or 0 if the run was known before, as after a replay that found no gap.
-- USES: queues, effects
-- ARGV: queue, entry, run_id, rule, deployment, token, now_ms, events, line, retention_ms, url, first_check_ms,
--   check_ms_each, planned_ms

local RUN = 'sluice:run:' .. run_id
local RUNS = 'sluice:runs'
local ACTIVE = 'sluice:active:' .. rule

local origins = cjson.decode(events)
expect_queue(queue)
expect('hash', RUN)
expect('zset', RUNS)
expect('set', ACTIVE)
for _, origin in ipairs(origins) do expect_event(origin[1]) end

queue_drop(queue, entry)
if redis.call('EXISTS', RUN) == 1 then
  if not redis.call('ZSCORE', RUNS, run_id) then  -- it is over: only a replay, or a damaged event, waits for it
    local state = string.match(redis.call('HGET', RUN, 's') or '', '^%d+ (%u+)$') or 'CANCELLED'
    local value = ended_run(run_id, url, rule, deployment, state, state, '')
    for _, origin in ipairs(origins) do
      if redis.call('HGET', OPEN .. origin[1], token) == '' then close_effect(origin[1], token, value) end
    end
  end
  return 0
end

redis.call('HSET', RUN, 'e', events, 'r', rule, 'd', deployment, 't', token, 'c', now_ms)
if planned_ms ~= '' then redis.call('HSET', RUN, 'p', planned_ms) end
local wait_ms = math.max(tonumber(first_check_ms), redis.call('ZCARD', RUNS) * check_ms_each)
redis.call('ZADD', RUNS, now_ms + wait_ms, run_id)
redis.call('SADD', ACTIVE, run_id)
for _, origin in ipairs(origins) do remember(origin[1], line, retention_ms) end
return 1
