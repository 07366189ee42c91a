-- Closes the rows of files that no longer exist; a row whose event is in flight stays as it is. Returns the number
-- closed.
-- USES: clock
-- KEYS: rows, numbers
-- ARGV: files[path, expected]

local at = string.format('%.0f', clock_ms())
local closed = 0
for path, expected in files() do
  local row = redis.call('HGET', rows, path)
  if row == expected then
    local state, version, generation = string.match(row, '^(%a) (%S+) (%d+)')
    if state == 'd' or state == 'f' or state == 'u' then
      redis.call('HSET', rows, path, 'x ' .. version .. ' ' .. generation .. ' ' .. at .. ' - -')
      redis.call('HINCRBY', numbers, 'closed', 1)
      closed = closed + 1
    end
  end
end
return closed
