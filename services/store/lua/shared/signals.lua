-- The log of a signal, and the keys that all signals share.
-- USES: expect, clock

local SEQUENCE = 'sluice:signals:sequence'
local INDEX = 'sluice:signals:index'
local OPEN_SIGNALS = 'sluice:signals:open'
local BUFFERED = 'sluice:signals:buffered'
local OUTBOX = 'sluice:signals:outbox'
local TOLD = 'sluice:signals:told:'

local function expect_signal(record)
  expect('hash', record)
  expect('zset', INDEX, OPEN_SIGNALS, BUFFERED)
  expect('stream', OUTBOX)
end

local function is_open(status)
  return status == 'received' or status == 'buffered'
end

local function log(record, status, reason)
  local line = cjson.encode({clock_ms(), status, reason})
  local lines = redis.call('HGET', record, 'log')
  redis.call('HSET', record, 'log', lines and (lines .. '\n' .. line) or line)
end
