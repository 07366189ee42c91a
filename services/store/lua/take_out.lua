#!lua flags=allow-oom
-- Removes an element from a key of the type `kind`; from a hash only if the field holds `value`. Returns the number of
-- elements removed.
-- KEYS: key
-- ARGV: kind, element, value

if redis.call('TYPE', key)['ok'] ~= kind then return 0 end
if kind == 'list' then return redis.call('LREM', key, 1, element) end
if kind == 'set' then return redis.call('SREM', key, element) end
if kind == 'zset' then return redis.call('ZREM', key, element) end
if kind == 'stream' then return redis.call('XDEL', key, element) end
if redis.call('HGET', key, element) ~= value then return 0 end
return redis.call('HDEL', key, element)
