-- Removes from a group the consumers that have nothing pending and were idle for longer than `idle_ms`: each start of a
-- process is a consumer of its own. Only a script can check and remove in one step. Returns the number removed.
-- KEYS: stream
-- ARGV: group, idle_ms

if redis.call('EXISTS', stream) == 0 then return 0 end
local forgotten = 0
for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local fields = {}
  for i = 1, #row, 2 do fields[row[i]] = row[i + 1] end
  if fields['pending'] == 0 and fields['idle'] > tonumber(idle_ms) then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, fields['name'])
    forgotten = forgotten + 1
  end
end
return forgotten
