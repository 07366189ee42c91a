-- Compares files with their rows. Returns the server's time (ms); one letter for each file ('=': this version was
-- announced, '-': there is no row, '+': the row is of another version); and the rows of the files with '+', in order.
-- USES: clock
-- KEYS: rows
-- ARGV: files[path, version]

local letters, answers = {}, {clock_ms(), ''}
for path, version in files() do
  local row = redis.call('HGET', rows, path)
  if not row then
    letters[#letters + 1] = '-'
  elseif string.sub(row, 1, 1) ~= 'x' and string.sub(row, 3, 3 + #version) == version .. ' ' then
    letters[#letters + 1] = '='
  else
    letters[#letters + 1] = '+'
    answers[#answers + 1] = row
  end
end
answers[2] = table.concat(letters)
return answers
