#!lua flags=allow-oom
-- Adds what one process has counted since its last report to the totals of the metrics. A new series is added only
-- while the hash has fewer than `most` fields; the others are left out. Returns 1.
-- USES: expect
-- KEYS: totals
-- ARGV: most, gains[field, gain]

expect('hash', totals)
local room = tonumber(most) - redis.call('HLEN', totals)
for field, gain in gains() do
  local known = redis.call('HGET', totals, field)
  if known and not tonumber(known) then
    redis.call('HDEL', totals, field)
    known = false
  end
  if known or room > 0 then
    redis.call('HINCRBYFLOAT', totals, field, gain)
    if not known then room = room - 1 end
  end
end
return 1
