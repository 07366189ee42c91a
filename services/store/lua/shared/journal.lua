-- Adds the event at a position to the journal once more, for one rule, or with '' for all rules.

local JOURNAL = 'sluice:journal'

local function journal_again(position, rule, salt)  -- false when the journal no longer holds the event
  local found = redis.call('XRANGE', JOURNAL, position, position)[1]
  if not found then return false end
  local fields = {}
  for i = 1, #found[2], 2 do
    if found[2][i] ~= 'replay' then
      fields[#fields + 1] = found[2][i]
      fields[#fields + 1] = found[2][i + 1]
    end
  end
  salt = salt == '' and 'null' or cjson.encode(salt)
  local replay = '{"only":[' .. (rule == '' and '' or cjson.encode(rule)) .. '],"salt":' .. salt .. '}'
  redis.call('XADD', JOURNAL, '*', 'replay', replay, unpack(fields))
  return true
end
