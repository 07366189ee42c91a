-- Lets the windows of a rule decide on an event. Returns {decision, identity}: the decision is pass, held, closed,
-- repeated, duplicate or throttled; the identity is that of the event of which this is a duplicate, otherwise ''.
-- `member` is the event's identity (and salt); `kept` is what a window stores of it, and `known_ms` for how long it is
-- recognized. The keys of dedupe and throttle stand behind a '+', because '' means that the rule has none. `mode` is
-- 'batch', 'debounce', 'correlate' or ''. `kinds` are those of the event and `all_kinds` those of the correlation, in
-- JSON.
-- USES: windows
-- ARGV: rule, member, position, kept, known_ms, dedupe_key, dedupe_ms, throttle_key, throttle_count, throttle_ms,
--   mode, key, most_events, wait_ms, longest_wait_ms, kinds, all_kinds

local MOST_DROPPED_LISTED = 1000

local name = rule .. '\n' .. key
local seen = 'sluice:window:seen:' .. rule .. '\n' .. member
local dropped = 'sluice:window:dropped:' .. rule
local held = HELD .. name
local dedupe = dedupe_key ~= '' and 'sluice:window:dedupe:' .. rule .. '\n' .. string.sub(dedupe_key, 2)
local throttle = throttle_key ~= '' and 'sluice:window:throttle:' .. rule .. '\n' .. string.sub(throttle_key, 2)
expect('string', seen, FIRST .. name)
expect('stream', dropped)
expect('list', held)
if dedupe then expect('string', dedupe) end
if throttle then expect('zset', throttle) end
for _, kind in ipairs(cjson.decode(all_kinds)) do expect('list', held_kind(name, kind)) end

if mode ~= '' then
  local known = redis.call('GET', seen)
  if known == position then return {'held', ''} end
  if known then return {'repeated', ''} end
end

local function drop(why, other, dropped_key)
  redis.call('HINCRBY', DROPPED, rule, 1)
  redis.call('XADD', dropped, 'MAXLEN', MOST_DROPPED_LISTED, '*', 'e', member, 'w', why, 'k', dropped_key, 'o', other)
  redis.call('PEXPIRE', dropped, known_ms)
  return {why, other}
end

if dedupe then
  local first = redis.call('GET', dedupe)
  if first and first ~= member then return drop('duplicate', first, string.sub(dedupe_key, 2)) end
end
if throttle then
  redis.call('ZREMRANGEBYSCORE', throttle, '-inf', now_ms - throttle_ms)
  if not redis.call('ZSCORE', throttle, member) and redis.call('ZCARD', throttle) >= tonumber(throttle_count) then
    return drop('throttled', '', string.sub(throttle_key, 2))
  end
end
if dedupe then redis.call('SET', dedupe, member, 'PX', dedupe_ms, 'NX') end
if throttle then
  redis.call('ZADD', throttle, 'NX', now_ms, member)
  redis.call('PEXPIRE', throttle, throttle_ms)
end
if mode == '' then return {'pass', ''} end

redis.call('SET', seen, position, 'PX', known_ms)
redis.call('ZADD', POSITIONS, string.match(position, '^%d+'), position)
redis.call('HSET', OPEN_WINDOWS, name, '{"mode":"' .. mode .. '","wait":' .. wait_ms .. ',"kinds":' .. all_kinds .. '}')

if mode == 'correlate' then
  local needed = cjson.decode(all_kinds)
  local chosen, fewest
  for _, kind in ipairs(cjson.decode(kinds)) do
    local length = redis.call('LLEN', held_kind(name, kind))
    if not fewest or length < fewest then chosen, fewest = kind, length end
  end
  redis.call('RPUSH', held_kind(name, chosen), chosen .. '|' .. now_ms .. '|' .. kept)
  for _, kind in ipairs(needed) do
    if redis.call('EXISTS', held_kind(name, kind)) == 0 then
      set_due_of_correlation(name, needed, wait_ms)
      return {'held', ''}
    end
  end
  local closed = begin_closed(name, 'complete')
  for _, kind in ipairs(needed) do redis.call('LMOVE', held_kind(name, kind), closed, 'LEFT', 'RIGHT') end
  set_due_of_correlation(name, needed, wait_ms)
  return {'closed', ''}
end

local count = redis.call('RPUSH', held, '|' .. now_ms .. '|' .. kept)
if count >= tonumber(most_events) then
  close_window(name, 'full')
  return {'closed', ''}
end
if mode == 'batch' then
  redis.call('ZADD', DUE, 'NX', now_ms + wait_ms, name)
else
  redis.call('SET', FIRST .. name, now_ms, 'NX')
  local latest = (tonumber(redis.call('GET', FIRST .. name)) or now_ms) + longest_wait_ms
  redis.call('ZADD', DUE, math.min(now_ms + wait_ms, latest), name)
end
return {'held', ''}
