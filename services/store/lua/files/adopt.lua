-- Lets rows follow their files to versions that are the same content with another time.
-- Returns 1 for each file whose row was the expected one, else 0.
-- KEYS: rows
-- ARGV: files[path, expected, version]

local answers = {}
for path, expected, version in files() do
  local row = redis.call('HGET', rows, path)
  if row == expected then
    local state, rest = string.match(row, '^(%a) %S+ (.*)$')
    redis.call('HSET', rows, path, state .. ' ' .. version .. ' ' .. rest)
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 0
  end
end
return answers
