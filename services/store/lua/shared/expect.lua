-- Ends the script with an error if a key holds another type than the script needs. A script that fails half-way keeps
-- what it has written: therefore each script checks every key that it writes before its first write.

local function expect(kind, ...)
  for _, key in ipairs({...}) do
    local found = redis.call('TYPE', key)['ok']
    if found ~= 'none' and found ~= kind then
      local named = string.gsub(key, '[^%w:%-_./]', function(c) return string.format('%%%02X', string.byte(c)) end)
      error('WRONGTYPE key=' .. named .. ' holds a ' .. found .. ' instead of a ' .. kind)
    end
  end
end
