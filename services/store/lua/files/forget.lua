-- Deletes rows that are still `expected`. Returns the number deleted.
-- KEYS: rows
-- ARGV: files[path, expected]

local forgotten = 0
for path, expected in files() do
  if redis.call('HGET', rows, path) == expected then
    forgotten = forgotten + redis.call('HDEL', rows, path)
  end
end
return forgotten
