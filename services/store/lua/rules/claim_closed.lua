-- Claims at most `most` closed windows for `lease_ms`, after which others may claim them. Returns their ids.
-- USES: clock
-- ARGV: most, lease_ms

local READY = 'sluice:windows:ready'
local now_ms = clock_ms()
local ids = redis.call('ZRANGEBYSCORE', READY, '-inf', now_ms, 'LIMIT', 0, most)
for _, id in ipairs(ids) do redis.call('ZADD', READY, now_ms + lease_ms, id) end
return ids
