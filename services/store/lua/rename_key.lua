#!lua flags=allow-oom
-- Renames a key whose type is not `wanted` (with '': of any type) to `new_name`. Returns 1 if it was renamed, otherwise
-- 0.
-- KEYS: key, new_name
-- ARGV: wanted

local found = redis.call('TYPE', key)['ok']
if found == 'none' or found == wanted then return 0 end
redis.call('RENAME', key, new_name)
redis.call('PERSIST', new_name)
return 1
