-- Adds each event to the journal once, by its identity. It is known for `known_ms`.
-- Returns for each event the position of its new entry, or the position under which it is known behind a minus sign.
-- With `confirmed` 1 it writes for a repeated event, too, so that replicas have a write to confirm.
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
