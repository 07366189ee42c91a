#!lua flags=allow-oom
-- Takes dispatches of one event each out of their queue and puts the events into the journal again, for the rule.
-- Returns how many: those whose event the journal no longer holds stay.
-- USES: queues, journal
-- ARGV: queue, rule, waiting[entry, position, salt]

expect_queue(queue)
expect('stream', JOURNAL)
local moved = 0
for entry, position, salt in waiting() do
  if journal_again(position, rule, salt) then
    queue_drop(queue, entry)
    moved = moved + 1
  end
end
return moved
