#!lua flags=allow-oom
-- Replaces a dispatch that can never be done as a whole by its parts.
-- Returns 1, or 0 if another process has dealt with the entry.
-- USES: queues, effects
-- ARGV: queue, entry, retention_ms, line, identities[identity], parts[queue, payload]

expect_queue(queue)
for identity in identities() do expect_event(identity) end
for part_queue in parts() do expect_queue(part_queue) end

if queue_drop(queue, entry) == 0 then return 0 end
for part_queue, payload in parts() do queue_push(part_queue, payload) end
queue_notify()
for identity in identities() do remember(identity, line, retention_ms) end
return 1
