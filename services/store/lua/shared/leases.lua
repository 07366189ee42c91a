-- Says whether somebody holds a lease. A key without expiry, or with one of more than an hour, is not a lease that
-- Sluice took: the longest is shorter.
-- USES: expect

local function taken(lease)
  expect('string', lease)
  local left_ms = redis.call('PTTL', lease)
  return left_ms >= 0 and left_ms <= 3600000
end
