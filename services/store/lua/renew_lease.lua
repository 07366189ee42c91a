#!lua flags=allow-oom
-- Renews a lease. Returns 1 while nobody has held it since the holder's number was given, even if it ran out in
-- between.
-- KEYS: lease, counter
-- ARGV: holder, life_ms

if redis.call('GET', counter) ~= holder then return 0 end
redis.call('SET', lease, holder, 'PX', life_ms)
return 1
