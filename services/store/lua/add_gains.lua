#!lua flags=allow-oom
-- Adds what a process has gained to the totals of the metrics; of new series only as many as there is room for.
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
