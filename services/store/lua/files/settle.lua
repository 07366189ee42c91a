-- Removes events from those in flight and notes in their rows how they ended, unless the row is of a later version.
-- `tally` is the counter to increment; with `remember` '1' the content is remembered for `memory_ms` under a key that
-- begins with `memory`. Returns nil.
-- USES: clock
-- KEYS: rows, in_flight, due, numbers
-- ARGV: memory, memory_ms, ends[event_id, path, generation, state, tally, remember]

local at = string.format('%.0f', clock_ms())
for event_id, path, generation, state, tally, remember in ends() do
  redis.call('HDEL', due, event_id)
  if redis.call('HDEL', in_flight, event_id) == 1 then
    redis.call('HINCRBY', numbers, tally, 1)
    local row = redis.call('HGET', rows, path) or ''
    local version, known_generation, digest, marker = string.match(row, '^%a (%S+) (%d+) %d+ (%S+) (%S+)$')
    if known_generation == generation then
      if remember == '1' and digest ~= '-' then
        redis.call('SET', memory .. redis.sha1hex(path), digest, 'PX', memory_ms)
      end
      if state == 'x' then
        redis.call('HINCRBY', numbers, 'closed', 1)
        digest, marker = '-', '-'
      end
      redis.call('HSET', rows, path,
        state .. ' ' .. version .. ' ' .. generation .. ' ' .. at .. ' ' .. digest .. ' ' .. marker)
    end
  end
end
