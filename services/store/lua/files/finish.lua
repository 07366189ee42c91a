-- Notes how events ended (`finished` is JSON). Returns the number of them that are in flight for this watch.
-- KEYS: in_flight, due
-- ARGV: ends[event_id, finished]

local noted = 0
for event_id, finished in ends() do
  if redis.call('HEXISTS', in_flight, event_id) == 1 then
    redis.call('HSET', due, event_id, finished)
    noted = noted + 1
  end
end
return noted
