#!lua flags=allow-oom
-- Rebuilds a stream that has had entries later than `limit_ms`, because it refuses every entry at a position below its
-- highest. The new stream has the entries until `limit_ms`, and the groups with their pending entries; the old one is
-- renamed to `kept_as`. Returns 1, or 0 if the stream needed no rebuilding.
-- KEYS: stream, kept_as, anew
-- ARGV: limit_ms

local function ms(id) return tonumber(string.match(id, '^%d+')) end
local function named(row)
  local fields = {}
  for i = 1, #row, 2 do fields[row[i]] = row[i + 1] end
  return fields
end
if redis.call('TYPE', stream)['ok'] ~= 'stream' then return 0 end
local limit = tonumber(limit_ms)
if ms(named(redis.call('XINFO', 'STREAM', stream))['last-generated-id']) <= limit then return 0 end
redis.call('DEL', anew)
redis.call('XGROUP', 'CREATE', anew, 'made', '0', 'MKSTREAM')
redis.call('XGROUP', 'DESTROY', anew, 'made')
local start, last = '-', '0-0'
repeat
  local rows = redis.call('XRANGE', stream, start, limit_ms, 'COUNT', 1000)
  for _, row in ipairs(rows) do
    redis.call('XADD', anew, row[1], unpack(row[2]))
    last = row[1]
  end
  start = '(' .. last
until #rows == 0
for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local group = named(row)
  local read = ms(group['last-delivered-id']) > limit and last or group['last-delivered-id']
  local unread = #redis.call('XRANGE', anew, '(' .. read, '+')
  redis.call('XGROUP', 'CREATE', anew, group['name'], read, 'ENTRIESREAD', redis.call('XLEN', anew) - unread)
  local from = '-'
  repeat
    local pending = redis.call('XPENDING', stream, group['name'], from, limit_ms, 1000)
    for _, one in ipairs(pending) do
      redis.call('XCLAIM', anew, group['name'], one[2], 0, one[1], 'IDLE', one[3], 'RETRYCOUNT', one[4], 'FORCE')
      from = '(' .. one[1]
    end
  until #pending == 0
end
redis.call('RENAME', stream, kept_as)
redis.call('RENAME', anew, stream)
return 1
