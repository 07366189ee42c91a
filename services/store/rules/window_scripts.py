"""The scripts by which the windows of the rules decide, each one atomic and by the server's clock."""

from __future__ import annotations

from typing import Final

from services.store.unreadable import EXPECT

OPEN: Final = "sluice:windows:open"
"""For each window that holds something, by its name (rule, newline, key), how it closes."""

DUE: Final = "sluice:windows:due"
"""The names of those windows, by the time (ms) at which they close."""

READY: Final = "sluice:windows:ready"
"""The ids of closed windows, by the time (ms) from which they may be claimed."""

POSITIONS: Final = "sluice:windows:positions"
"""The journal's positions of everything that is held or closed, by their time (ms)."""

DROPPED: Final = "sluice:windows:dropped"
"""How many events each rule's windows have dropped."""

COUNT: Final = "sluice:windows:count"
"""How many windows have closed."""

PREFIX: Final = "sluice:window:"
_MOST_DROPPED_LISTED: Final = 1000
_CLOSING: Final = (
    EXPECT
    + f"""
expect('zset', '{DUE}', '{READY}', '{POSITIONS}')
expect('hash', '{OPEN}', '{DROPPED}')
expect('string', '{COUNT}')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function begin_closed(name, why)
  local id
  repeat  -- the counter may have been lost, and what closed before it must stay
    id = redis.call('INCR', '{COUNT}')
  until redis.call('EXISTS', '{PREFIX}closed:' .. id, '{PREFIX}closed:' .. id .. ':events') == 0
  redis.call('HSET', '{PREFIX}closed:' .. id, 'name', name, 'why', why)
  redis.call('ZADD', '{READY}', now, id)
  return '{PREFIX}closed:' .. id .. ':events'
end
local function forget(name)
  redis.call('ZREM', '{DUE}', name)
  redis.call('HDEL', '{OPEN}', name)
  redis.call('DEL', '{PREFIX}first:' .. name)
end
local function close_whole(name, why)
  local held = '{PREFIX}held:' .. name
  expect('list', held)
  if redis.call('EXISTS', held) == 1 then redis.call('RENAME', held, begin_closed(name, why)) end
  forget(name)
end
-- When the oldest event that a correlation holds will have waited for too long; nil if it holds none.
local function set_due_of_joined(name, kinds, wait)
  local oldest
  for _, kind in ipairs(kinds) do
    local head = redis.call('LINDEX', '{PREFIX}held:' .. name .. '\\n' .. kind, 0)
    if head then
      local at = tonumber(string.match(head, '^[^|]*|(%d+)|') or '')
      if not at then expect('event that a window holds', '{PREFIX}held:' .. name .. '\\n' .. kind) end
      if not oldest or at < oldest then oldest = at end
    end
  end
  if oldest then redis.call('ZADD', '{DUE}', oldest + wait, name) else forget(name) end
end
"""
)

# ARGV: 1 rule, 2 member (identity and salt), 3 position, 4 what is kept of it, 5 how long members are known (ms);
# 6 dedupe key or '', 7 its time (ms); 8 throttle key or '', 9 its number, 10 its time (ms); 11 mode or '', 12 key,
# 13 most events, 14 wait (ms), 15 longest wait (ms), 16 kinds of the event, 17 all kinds (both as JSON).
# A key is given behind a '+', so that an empty one is told from none. Answers {what, which other event or ''}.
OFFER: Final = (
    _CLOSING
    + f"""
local rule, member, mode = ARGV[1], ARGV[2], ARGV[11]
local known = '{PREFIX}seen:' .. rule .. '\\n' .. member
local list = '{PREFIX}dropped:' .. rule
local name = rule .. '\\n' .. ARGV[12]
local held = '{PREFIX}held:' .. name
expect('string', known, '{PREFIX}first:' .. name)
expect('stream', list)
expect('list', held)
if ARGV[6] ~= '' then expect('string', '{PREFIX}dedupe:' .. rule .. '\\n' .. string.sub(ARGV[6], 2)) end
if ARGV[8] ~= '' then expect('zset', '{PREFIX}throttle:' .. rule .. '\\n' .. string.sub(ARGV[8], 2)) end
for _, kind in ipairs(cjson.decode(ARGV[17])) do expect('list', held .. '\\n' .. kind) end
if mode ~= '' then
  local position = redis.call('GET', known)
  if position == ARGV[3] then return {{'held', ''}} end
  if position then return {{'repeated', ''}} end
end
local function drop(why, other, key)
  redis.call('HINCRBY', '{DROPPED}', rule, 1)
  redis.call('XADD', list, 'MAXLEN', '{_MOST_DROPPED_LISTED}', '*', 'e', member, 'w', why, 'k', key, 'o', other)
  redis.call('PEXPIRE', list, ARGV[5])
  return {{why, other}}
end
local dedupe, throttle
if ARGV[6] ~= '' then
  dedupe = '{PREFIX}dedupe:' .. rule .. '\\n' .. string.sub(ARGV[6], 2)
  local first = redis.call('GET', dedupe)
  if first and first ~= member then return drop('duplicate', first, string.sub(ARGV[6], 2)) end
end
if ARGV[8] ~= '' then
  throttle = '{PREFIX}throttle:' .. rule .. '\\n' .. string.sub(ARGV[8], 2)
  redis.call('ZREMRANGEBYSCORE', throttle, '-inf', now - ARGV[10])
  if not redis.call('ZSCORE', throttle, member) and redis.call('ZCARD', throttle) >= tonumber(ARGV[9]) then
    return drop('throttled', '', string.sub(ARGV[8], 2))
  end
end
if dedupe then redis.call('SET', dedupe, member, 'PX', ARGV[7], 'NX') end
if throttle then
  redis.call('ZADD', throttle, 'NX', now, member)
  redis.call('PEXPIRE', throttle, ARGV[10])
end
if mode == '' then return {{'pass', ''}} end

redis.call('SET', known, ARGV[3], 'PX', ARGV[5])
redis.call('ZADD', '{POSITIONS}', string.match(ARGV[3], '^%d+'), ARGV[3])
local wait = tonumber(ARGV[14])
redis.call('HSET', '{OPEN}', name, '{{"mode":"' .. mode .. '","wait":' .. ARGV[14] .. ',"kinds":' .. ARGV[17] .. '}}')
if mode == 'correlate' then
  local kinds = cjson.decode(ARGV[17])
  local chosen, fewest
  for _, kind in ipairs(cjson.decode(ARGV[16])) do
    local length = redis.call('LLEN', held .. '\\n' .. kind)
    if not fewest or length < fewest then chosen, fewest = kind, length end
  end
  redis.call('RPUSH', held .. '\\n' .. chosen, chosen .. '|' .. now .. '|' .. ARGV[4])
  for _, kind in ipairs(kinds) do
    if redis.call('EXISTS', held .. '\\n' .. kind) == 0 then
      set_due_of_joined(name, kinds, wait)
      return {{'held', ''}}
    end
  end
  local closed = begin_closed(name, 'complete')
  for _, kind in ipairs(kinds) do redis.call('LMOVE', held .. '\\n' .. kind, closed, 'LEFT', 'RIGHT') end
  set_due_of_joined(name, kinds, wait)
  return {{'closed', ''}}
end
local count = redis.call('RPUSH', held, '|' .. now .. '|' .. ARGV[4])
if count >= tonumber(ARGV[13]) then
  close_whole(name, 'full')
  return {{'closed', ''}}
end
if mode == 'batch' then
  redis.call('ZADD', '{DUE}', 'NX', now + wait, name)
else
  redis.call('SET', '{PREFIX}first:' .. name, now, 'NX')
  local latest = (tonumber(redis.call('GET', '{PREFIX}first:' .. name)) or now) + ARGV[15]
  redis.call('ZADD', '{DUE}', math.min(now + wait, latest), name)
end
return {{'held', ''}}
"""
)

# ARGV: how many windows at most. Answers how many closed.
CLOSE_DUE: Final = (
    _CLOSING
    + f"""
local names = redis.call('ZRANGEBYSCORE', '{DUE}', '-inf', now, 'LIMIT', 0, ARGV[1])
for _, name in ipairs(names) do
  local how = cjson.decode(redis.call('HGET', '{OPEN}', name) or '{{"mode":"gone"}}')
  if how.mode == 'correlate' then
    local closed
    for _, kind in ipairs(how.kinds) do expect('list', '{PREFIX}held:' .. name .. '\\n' .. kind) end
    for _, kind in ipairs(how.kinds) do
      local held = '{PREFIX}held:' .. name .. '\\n' .. kind
      local head = redis.call('LINDEX', held, 0)
      while head and (tonumber(string.match(head, '^[^|]*|(%d+)|') or '') or 0) + how.wait <= now do
        closed = closed or begin_closed(name, 'incomplete')
        redis.call('LMOVE', held, closed, 'LEFT', 'RIGHT')
        head = redis.call('LINDEX', held, 0)
      end
    end
    set_due_of_joined(name, how.kinds, how.wait)
  else
    close_whole(name, 'time')
  end
end
return #names
"""
)

# ARGV: id. Puts two closed windows in the place of one, with a half of its events each. Answers how many there are now.
DIVIDE: Final = (
    _CLOSING
    + f"""
local whole = '{PREFIX}closed:' .. ARGV[1]
expect('hash', whole)
expect('list', whole .. ':events')
local fields = redis.call('HMGET', whole, 'name', 'why')
local rows = redis.call('LRANGE', whole .. ':events', 0, -1)
if not fields[1] or not fields[2] or #rows < 2 then return 0 end
local middle = math.floor(#rows / 2)
local first, second = begin_closed(fields[1], fields[2]), begin_closed(fields[1], fields[2])
for i, row in ipairs(rows) do redis.call('RPUSH', i <= middle and first or second, row) end
redis.call('ZREM', '{READY}', ARGV[1])
redis.call('DEL', whole, whole .. ':events')
return 2
"""
)

# Lua: forget a closed window of which everything has been handed on; false if that was done before.
FORGET_CLOSED: Final = f"""
local function forget_closed(id)
  local whole = '{PREFIX}closed:' .. id
  expect('hash', whole)
  expect('list', whole .. ':events')
  expect('zset', '{POSITIONS}', '{READY}')
  if redis.call('DEL', whole) == 0 then return false end
  for _, row in ipairs(redis.call('LRANGE', whole .. ':events', 0, -1)) do
    local readable, kept = pcall(cjson.decode, string.match(row, '^[^|]*|%d+|(.*)$') or '')
    if readable and type(kept) == 'table' and type(kept.p) == 'string' then
      redis.call('ZREM', '{POSITIONS}', kept.p)
    end
  end
  redis.call('DEL', whole .. ':events')
  redis.call('ZREM', '{READY}', id)
  return true
end
"""

# ARGV: how many at most, for how long (ms). Answers the ids of closed windows that are now the caller's for that long.
CLAIM: Final = f"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ids = redis.call('ZRANGEBYSCORE', '{READY}', '-inf', now, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(ids) do redis.call('ZADD', '{READY}', now + ARGV[2], id) end
return ids
"""

# Answers in how many ms something closes or may be claimed; -1 for never.
NEXT: Final = f"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local soonest = -1
for _, key in ipairs({{'{DUE}', '{READY}'}}) do
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] then
    local left = math.max(0, first[2] - now)
    if soonest < 0 or left < soonest then soonest = left end
  end
end
return soonest
"""
