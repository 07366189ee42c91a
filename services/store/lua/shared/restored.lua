-- Runs of a restored backup that no executor has settled yet. The key is not among the declared keys, because the
-- resumer's user of Redis may only read it.
-- USES: expect

local RESTORED_RUNS = 'sluice:executor:restored'
