#!lua
-- Records what the rules decided on a journal entry, queues its runs and acknowledges the entry.
-- Returns 1, or 0 if the entry was acknowledged before: then another router has done all this. The acknowledgement
-- comes last, so that an entry for which anything fails before is handled again. An effect's token names it among the
-- event's effects; its value is empty while it is open.
-- USES: queues, effects, parked
-- ARGV: group, position, identity, now_ms, retention_ms, quiet, match_count,
--   lines[line], matched[rule], dispatches[queue, payload, token], effects[token, value], parked[rule, salt]

local JOURNAL = 'sluice:journal'
local UNMATCHED = 'sluice:index:unmatched'
local MATCHED_BY = 'sluice:index:rule:'

if #redis.call('XPENDING', JOURNAL, group, position, position, 1) == 0 then return 0 end
expect_event(identity)
expect('zset', UNMATCHED, FAILED)
for rule in matched() do expect('zset', MATCHED_BY .. rule) end
for queue in dispatches() do expect_queue(queue) end
for rule in parked() do expect_parked(rule) end

local open = OPEN .. identity
for line in lines() do remember(identity, line, retention_ms) end
if quiet == '1' and redis.call('EXISTS', open) == 0 then redis.call('HSET', open, '!quiet', '1') end
redis.call('HSET', open, '!matched', match_count)
for rule in matched() do redis.call('ZADD', MATCHED_BY .. rule, now_ms, position) end
if match_count == '0' and quiet == '0' then redis.call('ZADD', UNMATCHED, now_ms, position) end

local queued = false
for queue, payload, token in dispatches() do
  queue_push(queue, payload)
  local known = redis.call('HGET', open, token)
  if not known or string.sub(known, 1, 1) == '!' then redis.call('HSET', open, token, '') end
  queued = true
end
if queued then queue_notify() end

for token, value in effects() do
  if value == '' then
    redis.call('HSETNX', open, token, '')  -- a window that was quicker has closed it already
  else
    redis.call('HSET', open, token, value)
  end
  if string.sub(value, 1, 1) == '!' then redis.call('ZADD', FAILED, now_ms, position) end
end
for rule, salt in parked() do park(rule, position, salt) end
finish(identity)
redis.call('XACK', JOURNAL, group, position)
return 1
