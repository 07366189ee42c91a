-- Gives a lease up if `holder` has it. Returns 1 if it had it, otherwise 0.
-- KEYS: lease
-- ARGV: holder

if redis.call('GET', lease) == holder then return redis.call('DEL', lease) end
return 0
