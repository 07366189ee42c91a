-- Replaces the execution of a run if it is `expected`; with '' the run has none afterwards. Returns 1, or 0 if it was
-- another. A restored run that has no execution any more is settled: the resumer may answer it again.
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
