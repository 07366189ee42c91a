#!lua flags=allow-oom
-- Renames a key that is not of the type that it should have, or with '' of whatever type. Returns 1 if it went.
-- KEYS: key, new_name
-- ARGV: wanted

local found = redis.call('TYPE', key)['ok']
if found == 'none' or found == wanted then return 0 end
redis.call('RENAME', key, new_name)
redis.call('PERSIST', new_name)
return 1
