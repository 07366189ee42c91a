-- Puts another execution in the place of the expected one, or with '' none. Returns 1 if it was the expected one.
-- KEYS: running
-- ARGV: run_id, expected, execution

if redis.call('HGET', running, run_id) ~= expected then return 0 end
if execution == '' then redis.call('HDEL', running, run_id) else redis.call('HSET', running, run_id, execution) end
return 1
