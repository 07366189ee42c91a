-- Gives a lease up, if it is the holder's. Returns whether it was.
-- KEYS: lease
-- ARGV: holder

if redis.call('GET', lease) == holder then return redis.call('DEL', lease) end
return 0
