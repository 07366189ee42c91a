-- Closes windows. It checks the types of its own keys; a script that uses it checks the other keys that it writes.
-- USES: expect, clock

local OPEN_WINDOWS = 'sluice:windows:open'
local DUE = 'sluice:windows:due'
local READY = 'sluice:windows:ready'
local POSITIONS = 'sluice:windows:positions'
local DROPPED = 'sluice:windows:dropped'
local COUNT = 'sluice:windows:count'
local HELD = 'sluice:window:held:'
local CLOSED = 'sluice:window:closed:'
local FIRST = 'sluice:window:first:'

expect('zset', DUE, READY, POSITIONS)
expect('hash', OPEN_WINDOWS, DROPPED)
expect('string', COUNT)
local now_ms = clock_ms()

local function begin_closed(name, why)
  local id
  repeat  -- the counter may have been lost, and what closed before it must stay
    id = redis.call('INCR', COUNT)
  until redis.call('EXISTS', CLOSED .. id, CLOSED .. id .. ':events') == 0
  redis.call('HSET', CLOSED .. id, 'name', name, 'why', why)
  redis.call('ZADD', READY, now_ms, id)
  return CLOSED .. id .. ':events'
end

local function forget_window(name)
  redis.call('ZREM', DUE, name)
  redis.call('HDEL', OPEN_WINDOWS, name)
  redis.call('DEL', FIRST .. name)
end

local function close_window(name, why)
  expect('list', HELD .. name)
  if redis.call('EXISTS', HELD .. name) == 1 then redis.call('RENAME', HELD .. name, begin_closed(name, why)) end
  forget_window(name)
end

local function held_kind(name, kind)
  return HELD .. name .. '\n' .. kind
end

-- The window is due when the oldest event that a correlation holds will have waited for too long.
local function set_due_of_correlation(name, kinds, wait_ms)
  local oldest
  for _, kind in ipairs(kinds) do
    local head = redis.call('LINDEX', held_kind(name, kind), 0)
    if head then
      local at = tonumber(string.match(head, '^[^|]*|(%d+)|') or '')
      if not at then expect('event that a window holds', held_kind(name, kind)) end
      if not oldest or at < oldest then oldest = at end
    end
  end
  if oldest then redis.call('ZADD', DUE, oldest + wait_ms, name) else forget_window(name) end
end
