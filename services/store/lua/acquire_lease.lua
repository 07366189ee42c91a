#!lua flags=allow-oom
-- Takes a lease for `life_ms`, under a number that is higher than every earlier holder's by `step`. Returns it, or 0
-- when somebody holds the lease.
-- USES: leases
-- KEYS: lease, counter
-- ARGV: life_ms, step

expect('string', counter)
if taken(lease) then return 0 end
local holder = redis.call('INCRBY', counter, step)
redis.call('SET', lease, holder, 'PX', life_ms)
return holder
