-- Turns a list in ARGV into a function to loop over. `behind` is the index of its number of rows; the rows follow. The
-- loader puts this in front of each script that has lists.

local behind

local function list_of(columns)
  local first, last = behind + 1, behind + ARGV[behind] * columns
  behind = last + 1
  return function()
    local i = first - columns
    return function()
      i = i + columns
      if i <= last then return unpack(ARGV, i, i + columns - 1) end
    end
  end
end
