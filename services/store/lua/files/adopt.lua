-- Updates the ledger's rows of files whose content is the same and whose time has changed.
-- Returns for each file 1, or 0 if its row is not `expected` any more.
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
