#!lua flags=allow-oom
-- Records that a run entered a state; a final state closes the effects of the run's events.
-- Returns {-1} for an unknown run, {0} for a state that is known or older than the known one, {1, …} for a new state,
-- and {2, …} if the run had failed before and has completed now. After 1 or 2 follow the run's rule, the time and name
-- of the state before, when it was created, when it was planned to start, and the position of its first event; '' for
-- none.
-- USES: queues, effects
-- ARGV: run_id, state, state_name, message, at_ms, final, url, line, now_ms, retention_ms, first_check_ms

local RUN = 'sluice:run:' .. run_id
local RUNS = 'sluice:runs'

expect('hash', RUN)
local known_events, rule, deployment, token, known_state, created_ms, planned_ms =
  unpack(redis.call('HMGET', RUN, 'e', 'r', 'd', 't', 's', 'c', 'p'))
if not (known_events and rule and deployment and token) then
  expect('zset', RUNS)
  redis.call('ZREM', RUNS, run_id)  -- nobody could ever say of it that it is over
  return {-1}
end
local ACTIVE = 'sluice:active:' .. rule
local origins = cjson.decode(known_events)
expect('zset', RUNS, FAILED)
expect('set', ACTIVE)
expect('stream', NOTIFY)
for _, origin in ipairs(origins) do expect_event(origin[1]) end

local before = ''
if known_state then
  local known_at
  known_at, before = string.match(known_state, '^(%d+) (.*)$')
  if not known_at then expect('run that Sluice created', RUN) end
  local reopened_ms = tonumber(redis.call('HGET', RUN, 'a') or '')
  local is_again = reopened_ms and tonumber(at_ms) >= reopened_ms  -- it failed once more before it began
  if tonumber(known_at) > tonumber(at_ms) or (before == state and not is_again) then
    if final == '1' and before == state then
      local give_up_at = tonumber(redis.call('HGET', RUN, 'b') or '')
      if give_up_at and tonumber(now_ms) < give_up_at then return {0} end  -- it is about to start again
      redis.call('ZREM', RUNS, run_id)
      if give_up_at then
        redis.call('HDEL', RUN, 'a', 'b')
        redis.call('PEXPIRE', RUN, retention_ms)
        local value = ended_run(run_id, url, rule, deployment, state, state_name, message)
        for _, origin in ipairs(origins) do
          if redis.call('HGET', OPEN .. origin[1], token) == '' then close_effect(origin[1], token, value) end
        end
      end
    end
    return {0}
  end
end
local news = {1, rule, known_state or '', created_ms or '', planned_ms or '', origins[1][2]}
redis.call('HSET', RUN, 's', at_ms .. ' ' .. state)
redis.call('HDEL', RUN, 'a', 'b')
for _, origin in ipairs(origins) do remember(origin[1], line, retention_ms) end
if final ~= '1' then
  redis.call('ZADD', RUNS, now_ms + first_check_ms, run_id)
  redis.call('SADD', ACTIVE, run_id)
  redis.call('PERSIST', RUN)
  return news
end

redis.call('ZREM', RUNS, run_id)
redis.call('SREM', ACTIVE, run_id)
redis.call('PEXPIRE', RUN, retention_ms)
queue_notify()  -- a limit on active runs may let the next one through
local value = ended_run(run_id, url, rule, deployment, state, state_name, message)
for _, origin in ipairs(origins) do
  if state ~= 'COMPLETED' then redis.call('ZADD', FAILED, at_ms, origin[2]) end
  close_effect(origin[1], token, value)
end
if state == 'COMPLETED' and before ~= '' and before ~= 'RUNNING' then news[1] = 2 end
return news
