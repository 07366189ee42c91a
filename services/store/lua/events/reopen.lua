#!lua flags=allow-oom
-- Opens a finished event again, so that it is announced as finished once more. `effects` are those that stay final;
-- each of `again` is a failed run that is to start again, with the token of its effect. A run that has not started
-- after `give_up_ms` counts as failed as before. Returns the number of open effects.
-- USES: effects
-- ARGV: identity, matched, now_ms, give_up_ms, effects[token, value], again[run_id, token]

local RUNS = 'sluice:runs'
local open = OPEN .. identity

expect_event(identity)
expect('zset', RUNS)
for run_id in again() do expect('hash', 'sluice:run:' .. run_id) end

redis.call('HSETNX', open, '!matched', matched)
redis.call('HDEL', open, '!quiet')
for token, value in effects() do redis.call('HSETNX', open, token, value) end
local count = 0
for run_id, token in again() do
  redis.call('HSET', open, token, '')
  redis.call('HSET', 'sluice:run:' .. run_id, 'a', now_ms, 'b', now_ms + give_up_ms)
  redis.call('PERSIST', 'sluice:run:' .. run_id)
  redis.call('ZADD', RUNS, now_ms + give_up_ms, run_id)
  count = count + 1
end
return count
