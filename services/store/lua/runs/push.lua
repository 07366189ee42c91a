-- Queues dispatches and notifies the dispatcher.
-- USES: queues
-- ARGV: dispatches[queue, payload]

for queue in dispatches() do expect_queue(queue) end
for queue, payload in dispatches() do queue_push(queue, payload) end
queue_notify()
