#!lua flags=allow-oom
-- Removes a dispatch that can never be done from its queue, and closes its effect `token` in each of `events` with the
-- given value and history line. Returns 1, or 0 if another process has dealt with the entry.
-- USES: queues, effects
-- ARGV: queue, entry, token, now_ms, retention_ms, events[identity, position, line, value]

expect_queue(queue)
expect('zset', FAILED)
for identity in events() do expect_event(identity) end

if queue_drop(queue, entry) == 0 then return 0 end
for identity, position, line, value in events() do
  remember(identity, line, retention_ms)
  redis.call('ZADD', FAILED, now_ms, position)
  close_effect(identity, token, value)
end
return 1
