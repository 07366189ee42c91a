-- The effects of an unfinished event, and its history: `finish` announces the event once no effect is open. A script
-- calls `expect_event` for each of its events before its first write. The value of an effect is empty while it is open;
-- afterwards it begins with `+` (a run that completed), `-` (a run that did not), `!` (a dead letter) or `.` (nothing
-- to report). Fields that Sluice did not write are ignored, and cannot spoil the announcement.
-- USES: expect

local OPEN = 'sluice:open:'
local HISTORY = 'sluice:history:'
local FINISHED = 'sluice:finished'
local FAILED = 'sluice:index:failed'

local function expect_event(event)
  expect('hash', OPEN .. event)
  expect('list', HISTORY .. event)
  expect('stream', FINISHED)
  local matched = redis.call('HGET', OPEN .. event, '!matched')
  if matched and not string.match(matched, '^%d+$') then expect('number of rules', OPEN .. event) end
end

local function is_object(json)
  local readable, value = pcall(cjson.decode, json)
  return readable and type(value) == 'table'
end

local function finish(event)
  local fields = redis.call('HGETALL', OPEN .. event)
  if #fields == 0 then return end
  local runs, dead, ok, matched, quiet = {}, {}, 'true', nil, false
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if name == '!matched' then matched = value
    elseif name == '!quiet' then quiet = true
    elseif name == '!' or string.match(name, '^[%w._-]+[#~!]') then
      if value == '' then return end
      local kind, rest = string.sub(value, 1, 1), string.sub(value, 2)
      if kind ~= '.' and not is_object(rest) then ok = 'false'
      elseif kind == '+' or kind == '-' then runs[#runs + 1] = rest
      elseif kind == '!' then dead[#dead + 1] = rest end
      if kind == '-' or kind == '!' then ok = 'false' end
    end
  end
  if not matched then return end  -- a window was quicker than the router
  redis.call('DEL', OPEN .. event)
  if not quiet then
    redis.call('XADD', FINISHED, '*', 'finished',
      '{"identity":' .. cjson.encode(event) .. ',"ok":' .. ok .. ',"matched":' .. matched ..
      ',"runs":[' .. table.concat(runs, ',') .. '],"dead":[' .. table.concat(dead, ',') .. ']}')
  end
end

local function close_effect(event, token, value)
  if redis.call('HEXISTS', OPEN .. event, token) == 1 then
    redis.call('HSET', OPEN .. event, token, value)
    finish(event)
  end
end

local function ended_run(run_id, url, rule, deployment, state, name, message)
  return (state == 'COMPLETED' and '+' or '-') .. '{"run_id":' .. cjson.encode(run_id) ..
    ',"url":' .. cjson.encode(url) .. ',"rule":' .. cjson.encode(rule) ..
    ',"deployment":' .. cjson.encode(deployment) .. ',"state_type":' .. cjson.encode(state) ..
    ',"state_name":' .. cjson.encode(name) .. ',"message":' .. cjson.encode(message) .. '}'
end

local function remember(event, line, retention_ms)
  redis.call('RPUSH', HISTORY .. event, line)
  redis.call('PEXPIRE', HISTORY .. event, retention_ms)
end
