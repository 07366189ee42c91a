#!lua flags=allow-oom
-- Takes a lease for `life_ms`. Returns the holder's number, which is higher than every earlier holder's by `step`, or 0
-- if somebody holds the lease.
-- USES: leases
-- KEYS: lease, counter
-- ARGV: life_ms, step

expect('string', counter)
if taken(lease) then return 0 end
local holder = redis.call('INCRBY', counter, step)
redis.call('SET', lease, holder, 'PX', life_ms)
return holder
