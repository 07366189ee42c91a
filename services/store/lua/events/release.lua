#!lua flags=allow-oom
-- Closes the effect `token` that a window kept open, for each of its events, which then wait for the runs queued here
-- instead. `closed` is the id of the closed window that this completes, or ''. An empty line is not added to the
-- history.
-- Returns the number of events that still had the effect open; 0, without a change, if the closed window is gone.
-- USES: queues, effects
-- ARGV: token, value, now_ms, retention_ms, closed, events[identity, position, line], dispatches[queue, payload, token]

local CLOSED = 'sluice:window:closed:' .. closed
local POSITIONS = 'sluice:windows:positions'
local READY = 'sluice:windows:ready'

expect('zset', FAILED)
for queue in dispatches() do expect_queue(queue) end
for identity in events() do expect_event(identity) end
if closed ~= '' then
  expect('hash', CLOSED)
  expect('list', CLOSED .. ':events')
  expect('zset', POSITIONS, READY)
  if redis.call('DEL', CLOSED) == 0 then return 0 end
  for _, row in ipairs(redis.call('LRANGE', CLOSED .. ':events', 0, -1)) do
    local readable, kept = pcall(cjson.decode, string.match(row, '^[^|]*|%d+|(.*)$') or '')
    if readable and type(kept) == 'table' and type(kept.p) == 'string' then redis.call('ZREM', POSITIONS, kept.p) end
  end
  redis.call('DEL', CLOSED .. ':events')
  redis.call('ZREM', READY, closed)
end

local queued = false
for queue, payload in dispatches() do
  queue_push(queue, payload)
  queued = true
end
if queued then queue_notify() end

local open_count = 0
for identity, position, line in events() do
  local open = OPEN .. identity
  if line ~= '' then remember(identity, line, retention_ms) end
  if string.sub(value, 1, 1) == '!' then redis.call('ZADD', FAILED, now_ms, position) end
  open_count = open_count + redis.call('HEXISTS', open, token)
  redis.call('HSET', open, token, value)
  for _, _, run_token in dispatches() do redis.call('HSETNX', open, run_token, '') end
  if redis.call('HEXISTS', open, '!matched') == 0 then redis.call('PEXPIRE', open, retention_ms) end
  finish(identity)
end
return open_count
