-- Makes a list in ARGV a function to loop over. Its number of rows stands at `behind`, and the rows follow.
-- The loader puts this before each script that has lists.

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
