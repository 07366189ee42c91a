-- Moves elements from one side of a list into its inbound stream, until there are `most`, or `most_bytes`, or the
-- stream has `longest` entries. Each element leaves the list and gets its id (the entry's) in one step: a crash finds
-- it in one of the two, once. Returns how many were moved.
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
