-- Takes events into the journal, each one (by its identity) once.
-- Returns for each event the new entry's position, or behind a minus sign the position under which it is known.
-- With `confirmed` 1 it writes for a repeated event, too, so that replicas have something to confirm.
-- USES: expect
-- ARGV: confirmed, known_ms, received, listener, events[identity, event]

local JOURNAL = 'sluice:journal'
local KNOWN = 'sluice:known:'

local answers = {}
for identity, event in events() do
  local known = redis.call('GET', KNOWN .. identity)
  if known then
    if not string.match(known, '^%d+%-%d+$') then expect('position of an event', KNOWN .. identity) end
    if confirmed == '1' then redis.call('SET', KNOWN .. identity, known, 'KEEPTTL') end
    answers[#answers + 1] = '-' .. known
  else
    local position = redis.call('XADD', JOURNAL, '*', 'event', event, 'received', received, 'listener', listener)
    redis.call('SET', KNOWN .. identity, position, 'PX', known_ms)
    answers[#answers + 1] = position
  end
end
return answers
