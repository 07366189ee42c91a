"""The file ledger's scripts: each is one atomic step on the rows of one watch.

A row is ``STATE VERSION GENERATION AT_MS DIGEST MARKER``, ``-`` where there is no digest or marker. The caller hands in
the row that its decision rests on, and a row that is another one by now leaves the decision without effect.
"""

from __future__ import annotations

from typing import Final

from services.store.events.known_events import KNOWN

# KEYS: rows. ARGV: for each file path, version. Answers the time (ms), one letter for each file ('=' this version was
# announced, '-' there is no row, '+' there is another), and the rows behind the '+' in order.
COMPARE: Final = """
local time = redis.call('TIME')
local letters, answers = {}, {time[1] * 1000 + math.floor(time[2] / 1000), ''}
for i = 1, #ARGV, 2 do
  local row = redis.call('HGET', KEYS[1], ARGV[i])
  if not row then
    letters[#letters + 1] = '-'
  elseif string.sub(row, 1, 1) ~= 'x' and string.sub(row, 3, 3 + #ARGV[i + 1]) == ARGV[i + 1] .. ' ' then
    letters[#letters + 1] = '='
  else
    letters[#letters + 1] = '+'
    answers[#answers + 1] = row
  end
end
answers[2] = table.concat(letters)
return answers
"""

# KEYS: journal, rows, in flight, due, numbers. ARGV: as of (ms), longest age of that (ms), how long an event is known
# (ms), what stands behind the id in an identity, received (ISO), listener, watch, prefix of the content memory or ''
# for none; then for each file: path, expected row or '', `VERSION DIGEST MARKER` and base of the id, the event's JSON
# after its id.
# Answers nil when the rows were read too long ago, else a line for each file: the event's id, nothing where the
# row was another, or '=' and an id where the content ran before and there is no event.
ANNOUNCE: Final = f"""
local time = redis.call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
if ms - tonumber(ARGV[1]) > tonumber(ARGV[2]) then return false end
local at = string.format('%.0f', ms)
local answers = {{}}
for i = 9, #ARGV, 4 do
  local path = ARGV[i]
  local row = redis.call('HGET', KEYS[2], path) or ''
  local answer = ''
  if row == ARGV[i + 1] then
    local version, digest, marker, base = string.match(ARGV[i + 2], '^(%S+) (%S+) (%S+) (%S+)$')
    local generation = string.format('%.0f', redis.call('HINCRBY', KEYS[5], 'generation', 1))
    local id = ARGV[7] .. '-' .. base .. '-' .. generation
    local fresh = row == '' or string.sub(row, 1, 1) == 'x'
    if ARGV[8] ~= '' and fresh and redis.call('GET', ARGV[8] .. redis.sha1hex(path)) == digest then
      redis.call('HSET', KEYS[4], id, '{{"ok":true,"same":true}}')
      answer = '=' .. id
    else
      local entry = redis.call('XADD', KEYS[1], '*', 'event', '{{"specversion":"1.0","id":"' .. id .. '",' ..
        ARGV[i + 3], 'received', ARGV[5], 'listener', ARGV[6])
      redis.call('SET', '{KNOWN}' .. id .. ARGV[4], entry, 'PX', ARGV[3])
      answer = id
    end
    redis.call('HSET', KEYS[2], path,
      's ' .. version .. ' ' .. generation .. ' ' .. at .. ' ' .. digest .. ' ' .. marker)
    redis.call('HSET', KEYS[3], id, at .. ' ' .. version .. ' ' .. path)
  end
  answers[#answers + 1] = answer
end
return table.concat(answers, '\\n')
"""

# KEYS: rows. ARGV: for each file path, expected row, version. The same content with another time: its row follows it.
# Answers 1 for each file whose row was the expected one, else 0.
ADOPT: Final = """
local answers = {}
for i = 1, #ARGV, 3 do
  local row = redis.call('HGET', KEYS[1], ARGV[i])
  if row == ARGV[i + 1] then
    local state, rest = string.match(row, '^(%a) %S+ (.*)$')
    redis.call('HSET', KEYS[1], ARGV[i], state .. ' ' .. ARGV[i + 2] .. ' ' .. rest)
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 0
  end
end
return answers
"""

# KEYS: rows, numbers. ARGV: for each file path, expected row. What is in flight stays.
CLOSE: Final = """
local time = redis.call('TIME')
local at = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local done = 0
for i = 1, #ARGV, 2 do
  local row = redis.call('HGET', KEYS[1], ARGV[i])
  if row == ARGV[i + 1] then
    local state, version, generation = string.match(row, '^(%a) (%S+) (%d+)')
    if state == 'd' or state == 'f' or state == 'u' then
      redis.call('HSET', KEYS[1], ARGV[i], 'x ' .. version .. ' ' .. generation .. ' ' .. at .. ' - -')
      redis.call('HINCRBY', KEYS[2], 'closed', 1)
      done = done + 1
    end
  end
end
return done
"""

# KEYS: rows. ARGV: for each file path, expected row. Answers how many rows are forgotten for good.
FORGET: Final = """
local done = 0
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    done = done + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return done
"""

# KEYS: in flight, due. ARGV: for each event its id and how it ended (JSON). Answers how many are files of this watch.
FINISH: Final = """
local done = 0
for i = 1, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    done = done + 1
  end
end
return done
"""

# KEYS: rows, in flight, due, numbers. ARGV: prefix of the content memory, its time (ms); then for each event its id,
# path, generation, the row's new state, the number to count it under, and '1' to remember the content.
SETTLE: Final = """
local time = redis.call('TIME')
local at = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
for i = 3, #ARGV, 6 do
  local id, path, state = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  redis.call('HDEL', KEYS[3], id)
  if redis.call('HDEL', KEYS[2], id) == 1 then
    redis.call('HINCRBY', KEYS[4], ARGV[i + 4], 1)
    local row = redis.call('HGET', KEYS[1], path)
    local pattern = '^%a (%S+) (%d+) %d+ (%S+) (%S+)$'
    local version, generation, digest, marker = string.match(row or '', pattern)
    if generation == ARGV[i + 2] then
      if ARGV[i + 5] == '1' and digest ~= '-' then
        redis.call('SET', ARGV[1] .. redis.sha1hex(path), digest, 'PX', ARGV[2])
      end
      if state == 'x' then
        redis.call('HINCRBY', KEYS[4], 'closed', 1)
        digest, marker = '-', '-'
      end
      redis.call('HSET', KEYS[1], path,
        state .. ' ' .. version .. ' ' .. generation .. ' ' .. at .. ' ' .. digest .. ' ' .. marker)
    end
  end
end
"""
