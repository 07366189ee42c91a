-- The time of the server in milliseconds: the only clock that all processes share.

local function clock_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
