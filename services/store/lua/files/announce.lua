-- Notes file versions in the ledger and adds an event for each to the journal, unless its content ran before (`memory`
-- is the prefix of the keys that remember content, or ''). For each file: `expected` is the row that the decision rests
-- on ('' for none); `about` is `VERSION DIGEST MARKER BASE`, with `-` for no digest or marker, and BASE a part of the
-- event's id; `tail` is the event's JSON after its id.
-- Returns nil if the rows were read more than `longest_ms` ago, otherwise a line for each file: the event's id; nothing
-- if the row is not `expected` any more; or '=' and an id if the content ran before, so that there is no event.
-- USES: clock
-- KEYS: journal, rows, in_flight, due, numbers
-- ARGV: as_of_ms, longest_ms, known_ms, identity_tail, received, listener, watch, memory,
--   files[path, expected, about, tail]

local now_ms = clock_ms()
if now_ms - as_of_ms > tonumber(longest_ms) then return false end
local at = string.format('%.0f', now_ms)
local answers = {}
for path, expected, about, tail in files() do
  local row = redis.call('HGET', rows, path) or ''
  local answer = ''
  if row == expected then
    local version, digest, marker, base = string.match(about, '^(%S+) (%S+) (%S+) (%S+)$')
    local generation = string.format('%.0f', redis.call('HINCRBY', numbers, 'generation', 1))
    local id = watch .. '-' .. base .. '-' .. generation
    local is_new = row == '' or string.sub(row, 1, 1) == 'x'
    if memory ~= '' and is_new and redis.call('GET', memory .. redis.sha1hex(path)) == digest then
      redis.call('HSET', due, id, '{"ok":true,"same":true}')
      answer = '=' .. id
    else
      local event = '{"specversion":"1.0","id":"' .. id .. '",' .. tail
      local position = redis.call('XADD', journal, '*', 'event', event, 'received', received, 'listener', listener)
      redis.call('SET', 'sluice:known:' .. id .. identity_tail, position, 'PX', known_ms)
      answer = id
    end
    redis.call('HSET', rows, path,
      's ' .. version .. ' ' .. generation .. ' ' .. at .. ' ' .. digest .. ' ' .. marker)
    redis.call('HSET', in_flight, id, at .. ' ' .. version .. ' ' .. path)
  end
  answers[#answers + 1] = answer
end
return table.concat(answers, '\n')
