-- Says whether somebody holds a lease. What never runs out, or not within an hour, is none: no lease is that long.
-- USES: expect

local function taken(lease)
  expect('string', lease)
  local left_ms = redis.call('PTTL', lease)
  return left_ms >= 0 and left_ms <= 3600000
end
