#!lua flags=allow-oom
-- Removes dispatches of one event each from their queue and puts the events into the journal again, for `rule` only.
-- Returns the number moved: a dispatch whose event the journal no longer holds stays.
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
