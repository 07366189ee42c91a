-- Puts another execution in the place of the expected one, or with '' none. Returns 1 if it was the expected one.
-- A run without one is settled, and takes answers again, if it is one that was restored.
-- USES: restored
-- KEYS: running
-- ARGV: run_id, expected, execution

expect('hash', running)
expect('set', RESTORED_RUNS)
if redis.call('HGET', running, run_id) ~= expected then return 0 end
if execution ~= '' then
  redis.call('HSET', running, run_id, execution)
else
  redis.call('HDEL', running, run_id)
  redis.call('SREM', RESTORED_RUNS, run_id)
end
return 1
