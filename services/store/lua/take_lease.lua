#!lua flags=allow-oom
-- Takes a lease for `life_ms` under the name that `holder` gives itself. Returns 1, or 0 if somebody holds the lease.
-- USES: leases
-- KEYS: lease
-- ARGV: holder, life_ms

if taken(lease) then return 0 end
redis.call('SET', lease, holder, 'PX', life_ms)
return 1
