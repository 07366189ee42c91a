#!lua flags=allow-oom
-- Puts the events of a damaged record into the journal again, to be evaluated by all rules, and removes `mended` from
-- the damaged records. Returns the number of events that the journal still holds.
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
