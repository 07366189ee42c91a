-- Notes which process executes a run. Returns nil, or the execution that is noted already.
-- KEYS: running
-- ARGV: run_id, execution

local noted = redis.call('HGET', running, run_id)
if noted then return noted end
redis.call('HSET', running, run_id, execution)
return nil
