"""The effects of an event that is not finished: what each waits for, and the step that finishes the event."""

from __future__ import annotations

import re
from typing import Final

from services.store.events.finished_events import FINISHED
from services.store.events.history import HISTORY
from services.store.keys import Key, is_number, is_object, is_text

OPEN: Final = "sluice:open:"
"""Prefix of the hash that holds, for an event that is not finished, each effect: empty, or what came of it."""

DAMAGED_MARK: Final = "!damaged"
"""The field that an event has there that is judged again because its state was damaged: it is announced in the end."""

# Lua: append the one finished entry once no effect is open. An effect's value begins with `+` (a run that completed),
# `-` (a run that did not), `!` (a dead letter) or `.` (nothing to report). What no part of Sluice has written there is
# passed over, and cannot spoil the entry.
FINISH: Final = f"""
local function expect_finish(id)
  expect('hash', '{OPEN}' .. id)
  expect('list', '{HISTORY}' .. id)
  expect('stream', '{FINISHED}')
  local matched = redis.call('HGET', '{OPEN}' .. id, '!matched')
  if matched and not string.match(matched, '^%d+$') then expect('number of rules', '{OPEN}' .. id) end
end
local function is_object(json)
  local readable, value = pcall(cjson.decode, json)
  return readable and type(value) == 'table'
end
local function finish(id)
  local key = '{OPEN}' .. id
  local fields = redis.call('HGETALL', key)
  if #fields == 0 then return 0 end
  local runs, dead, ok, matched, quiet = {{}}, {{}}, 'true', nil, false
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if name == '!matched' then matched = value
    elseif name == '!quiet' then quiet = true
    elseif name == '!' or string.match(name, '^[%w._-]+[#~!]') then
      if value == '' then return 0 end
      local kind, rest = string.sub(value, 1, 1), string.sub(value, 2)
      if kind ~= '.' and not is_object(rest) then ok = 'false'
      elseif kind == '+' or kind == '-' then runs[#runs + 1] = rest
      elseif kind == '!' then dead[#dead + 1] = rest end
      if kind == '-' or kind == '!' then ok = 'false' end
    end
  end
  if not matched then return 0 end  -- a window was quicker than the router
  redis.call('DEL', key)
  if not quiet then
    redis.call('XADD', '{FINISHED}', '*', 'finished',
      '{{"identity":' .. cjson.encode(id) .. ',"ok":' .. ok .. ',"matched":' .. matched ..
      ',"runs":[' .. table.concat(runs, ',') .. '],"dead":[' .. table.concat(dead, ',') .. ']}}')
  end
  return 1
end
local function ended(run_id, url, rule, deployment, state, name, message)
  return (state == 'COMPLETED' and '+' or '-') .. '{{"run_id":' .. cjson.encode(run_id) ..
    ',"url":' .. cjson.encode(url) .. ',"rule":' .. cjson.encode(rule) ..
    ',"deployment":' .. cjson.encode(deployment) .. ',"state_type":' .. cjson.encode(state) ..
    ',"state_name":' .. cjson.encode(name) .. ',"message":' .. cjson.encode(message) .. '}}'
end
local function remember(id, line, retention)
  redis.call('RPUSH', '{HISTORY}' .. id, line)
  redis.call('PEXPIRE', '{HISTORY}' .. id, retention)
end
"""

_TOKEN: Final = re.compile(r"!|[A-Za-z0-9._-]+[#~!].*", re.DOTALL)


def _is_effect(name: bytes, value: bytes) -> None:
    effect = is_text(name)
    if effect == "!matched":
        is_number(value)
    elif effect in {"!quiet", DAMAGED_MARK}:
        if value != b"1":
            raise ValueError("not a mark")
    elif not _TOKEN.fullmatch(effect):
        raise ValueError("not the name of an effect")
    elif value[:1] in {b"+", b"-", b"!"}:
        is_object(value[1:])
    elif value not in {b"", b"."}:
        raise ValueError("not an effect")


KEYS: Final = (Key(OPEN + "*", "hash", "effect of an unfinished event", "until all of them are final", _is_effect),)
