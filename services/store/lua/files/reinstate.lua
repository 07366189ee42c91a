-- Puts the event of an archived file in flight again, before its file is moved back. Returns 1; 2 if it is in flight
-- already; or 0 if the row is of another version of the file.
-- USES: expect, clock
-- KEYS: rows, in_flight, due, numbers
-- ARGV: event_id, path, version, generation, tally

expect('hash', rows, in_flight, due, numbers)
local row = redis.call('HGET', rows, path)
local state, known_generation = string.match(row or '', '^(%a) %S+ (%d+)')
local ours = known_generation == generation
if ours and state == 's' and redis.call('HEXISTS', in_flight, event_id) == 1 then return 2 end
if state and state ~= 'x' and not ours then return 0 end
local at = string.format('%.0f', clock_ms())
redis.call('HSET', rows, path, 's ' .. version .. ' ' .. generation .. ' ' .. at .. ' - -')
redis.call('HSET', in_flight, event_id, at .. ' ' .. version .. ' ' .. path)
redis.call('HDEL', due, event_id)
redis.call('HINCRBY', numbers, tally, -1)
return 1
