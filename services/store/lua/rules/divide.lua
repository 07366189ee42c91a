#!lua flags=allow-oom
-- Replaces a closed window by two, each with half of its events. Returns 2, or 0 if the window is gone or has only one
-- event.
-- USES: windows
-- ARGV: id

local whole = CLOSED .. id
expect('hash', whole)
expect('list', whole .. ':events')
local fields = redis.call('HMGET', whole, 'name', 'why')
local rows = redis.call('LRANGE', whole .. ':events', 0, -1)
if not fields[1] or not fields[2] or #rows < 2 then return 0 end
local middle = math.floor(#rows / 2)
local first, second = begin_closed(fields[1], fields[2]), begin_closed(fields[1], fields[2])
for i, row in ipairs(rows) do redis.call('RPUSH', i <= middle and first or second, row) end
redis.call('ZREM', READY, id)
redis.call('DEL', whole, whole .. ':events')
return 2
