#!lua flags=allow-oom
-- Renews a lease for `life_ms`. Returns 1 if nobody else has held it since `holder` was given its number, even if it
-- ran out meanwhile; otherwise 0.
-- KEYS: lease, counter
-- ARGV: holder, life_ms

if redis.call('GET', counter) ~= holder then return 0 end
redis.call('SET', lease, holder, 'PX', life_ms)
return 1
