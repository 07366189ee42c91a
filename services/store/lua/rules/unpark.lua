#!lua flags=allow-oom
-- Puts the first `most` parked events of a rule into the journal again. Returns the number taken.
-- USES: expect, parked, journal
-- ARGV: rule, most

expect_parked(rule)
expect('stream', JOURNAL)
local stream = PARKED .. rule
local rows = redis.call('XRANGE', stream, '-', '+', 'COUNT', most)
for _, row in ipairs(rows) do
  local position, salt = row[2][2], row[2][4]
  if row[2][1] == 'p' and row[2][3] == 's' and string.match(position, '^%d+%-%d+$') then
    journal_again(position, rule, salt)
  else
    expect('stream of parked events', stream)
  end
  redis.call('XDEL', stream, row[1])
end
if redis.call('XLEN', stream) == 0 then
  redis.call('DEL', stream)
  redis.call('SREM', PARKED_RULES, rule)
end
return #rows
