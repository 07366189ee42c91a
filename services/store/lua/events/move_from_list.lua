-- Moves elements from one side ('left' or 'right') of a list to its inbound stream, until `most` elements or
-- `most_bytes` bytes are moved or the stream has `longest` entries. Each element leaves the list and gets its id, which
-- is the entry's, in one step: after a crash it is in one of the two, once. Returns the number moved.
-- USES: expect
-- KEYS: list, stream
-- ARGV: side, most, most_bytes, longest

expect('stream', stream)
local room = math.min(tonumber(most), longest - redis.call('XLEN', stream))
local bytes, moved = 0, 0
while moved < room and bytes < tonumber(most_bytes) do
  local element = redis.call('LINDEX', list, side == 'left' and 0 or -1)
  if not element then break end
  redis.call('XADD', stream, '*', 'event', element)
  redis.call(side == 'left' and 'LPOP' or 'RPOP', list)
  bytes = bytes + #element
  moved = moved + 1
end
return moved
