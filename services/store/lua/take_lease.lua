#!lua flags=allow-oom
-- Takes a lease for `life_ms`, under a name of the holder's own. Returns 1, or 0 when somebody holds it.
-- USES: leases
-- KEYS: lease
-- ARGV: holder, life_ms

if taken(lease) then return 0 end
redis.call('SET', lease, holder, 'PX', life_ms)
return 1
