-- Returns the milliseconds until a window closes or a closed one may be claimed; -1 if there is none.
-- USES: clock

local now_ms = clock_ms()
local soonest = -1
for _, key in ipairs({'sluice:windows:due', 'sluice:windows:ready'}) do
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] then
    local left = math.max(0, first[2] - now_ms)
    if soonest < 0 or left < soonest then soonest = left end
  end
end
return soonest
