-- Adds dispatches to their queues, removes them, and notifies the dispatcher. A script calls `expect_queue` for each of
-- its queues before its first write.
-- USES: expect

local QUEUE = 'sluice:dispatch-queue:'
local QUEUES = 'sluice:dispatch-queues'
local NOTIFY = 'sluice:dispatch-queues:notify'

local function expect_queue(queue)
  expect('stream', QUEUE .. queue, NOTIFY)
  expect('set', QUEUES)
end

local function queue_push(queue, payload)
  redis.call('XADD', QUEUE .. queue, '*', 'd', payload)
  redis.call('SADD', QUEUES, queue)
end

local function queue_notify()
  redis.call('XADD', NOTIFY, 'MAXLEN', '1', '*', 'r', '')
end

local function queue_drop(queue, entry)
  local gone = redis.call('XDEL', QUEUE .. queue, entry)
  if redis.call('XLEN', QUEUE .. queue) == 0 then
    redis.call('DEL', QUEUE .. queue)
    redis.call('SREM', QUEUES, queue)
  end
  return gone
end
