-- Parks events for a rule. A script calls `expect_parked` for each of its rules before its first write.
-- USES: expect

local PARKED_RULES = 'sluice:parked'
local PARKED = 'sluice:parked:'

local function expect_parked(rule)
  expect('set', PARKED_RULES)
  expect('stream', PARKED .. rule)
end

local function park(rule, position, salt)
  redis.call('SADD', PARKED_RULES, rule)
  redis.call('XADD', PARKED .. rule, '*', 'p', position, 's', salt)
end
