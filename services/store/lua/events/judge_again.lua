#!lua flags=allow-oom
-- Has the events of something that was damaged judged again, and takes it out of what is to be mended.
-- Returns how many the journal still holds.
-- USES: expect, journal
-- ARGV: mended, events[identity, position]

local DAMAGED = 'sluice:damaged'
local OPEN = 'sluice:open:'

expect('set', DAMAGED)
expect('stream', JOURNAL)
for identity in events() do expect('hash', OPEN .. identity) end

if redis.call('SREM', DAMAGED, mended) == 0 then return 0 end
local again = 0
for identity, position in events() do
  if journal_again(position, '', '') then
    redis.call('HSET', OPEN .. identity, '!damaged', '1')
    again = again + 1
  end
end
return again
