-- Closes at most `most` of the windows whose time is over. Returns the number that were due.
-- USES: windows
-- ARGV: most

local names = redis.call('ZRANGEBYSCORE', DUE, '-inf', now_ms, 'LIMIT', 0, most)
for _, name in ipairs(names) do
  local how = cjson.decode(redis.call('HGET', OPEN_WINDOWS, name) or '{"mode":"gone"}')
  if how.mode == 'correlate' then
    local closed
    for _, kind in ipairs(how.kinds) do expect('list', held_kind(name, kind)) end
    for _, kind in ipairs(how.kinds) do
      local held = held_kind(name, kind)
      local head = redis.call('LINDEX', held, 0)
      while head and (tonumber(string.match(head, '^[^|]*|(%d+)|') or '') or 0) + how.wait <= now_ms do
        closed = closed or begin_closed(name, 'incomplete')
        redis.call('LMOVE', held, closed, 'LEFT', 'RIGHT')
        head = redis.call('LINDEX', held, 0)
      end
    end
    set_due_of_correlation(name, how.kinds, how.wait)
  else
    close_window(name, 'time')
  end
end
return #names
