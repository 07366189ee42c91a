"""The keys of the signal store, and its steps that must not be torn apart: Lua scripts."""

from __future__ import annotations

from typing import Final

from services.store.unreadable import EXPECT

RECORD: Final = "sluice:signal:"
"""Prefix of a signal's record; behind it the signal's id."""

SEQUENCE: Final = "sluice:signals:sequence"
INDEX: Final = "sluice:signals:index"
"""Every known signal by its place in the order of arrival."""

OPEN: Final = "sluice:signals:open"
"""The open signals by the time (ms) at which somebody must look at them again."""

BUFFERED: Final = "sluice:signals:buffered"
"""The buffered signals by the time (ms) at which they expire."""

TARGET: Final = "sluice:signals:for:"
"""Prefix of the open signals of one target in order; behind it ``run ID`` or ``key KEY``."""

RUN: Final = "sluice:signals:run:"
"""Prefix of the signals that had to do with one run, in order; behind it the run's id."""

STAY: Final = "sluice:signals:stay:"
"""Prefix of the id of the signal that was last applied to one wait; behind it the run's id, a blank, the wait's id."""

ANSWERED: Final = "sluice:signals:answered:"
"""Prefix of the waits for one key that were answered lately; behind it the key."""

LATELY: Final = "sluice:signals:lately:"
"""Prefix of the signals for one key that were applied lately, by when they came (ms); behind it the key. A run that was
waiting by then, and is heard of only now, gets them too."""

BUSY: Final = "sluice:signals:busy:"
"""Prefix of the short leases; behind it what is leased."""

OUTBOX: Final = "sluice:signals:outbox"
"""A stream of the outcomes that are still to be told to Prefect, the history and the dead letters."""

TOLD: Final = "sluice:signals:told:"
"""Prefix of the channel on which an outcome is told to whoever waits for it; behind it the signal's id."""

RECEIVED: Final = "received"

# Functions that the scripts share; the one clock for all is the server's.
_FUNCTIONS: Final = (
    EXPECT
    + f"""
local function expect_record(record)
  expect('hash', record)
  expect('zset', '{INDEX}', '{OPEN}', '{BUFFERED}')
  expect('stream', '{OUTBOX}')
end
"""
    + """
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function log(record, status, reason)
  local entry = cjson.encode({now_ms(), status, reason})
  local entries = redis.call('HGET', record, 'log')
  redis.call('HSET', record, 'log', entries and (entries .. '\\n' .. entry) or entry)
end
"""
)

# KEYS: record, target; ARGV: id, signal JSON, origin, look-again ms, most repeats that are told. Answers new or not,
# and the status.
SUBMIT: Final = (
    _FUNCTIONS
    + f"""
expect_record(KEYS[1])
expect('zset', KEYS[2])
local record, id = KEYS[1], ARGV[1]
local known = redis.call('HGET', record, 'status')
if known then
  if redis.call('HEXISTS', record, 'signal') == 0 then expect('signal', record) end
  if redis.call('HINCRBY', record, 'repeats', 1) <= tonumber(ARGV[5]) then
    log(record, 'duplicate', 'the same id came again, by ' .. ARGV[3])
    redis.call('XADD', '{OUTBOX}', '*', 'id', id, 'status', 'duplicate')
  end
  return {{0, known}}
end
local now = now_ms()
local place = redis.call('INCR', '{SEQUENCE}')
redis.call('HSET', KEYS[1], 'signal', ARGV[2], 'origin', ARGV[3], 'place', place, 'received', now,
  'status', '{RECEIVED}', 'reason', '')
log(KEYS[1], '{RECEIVED}', ARGV[3])
redis.call('ZADD', '{INDEX}', place, ARGV[1])
redis.call('ZADD', '{OPEN}', now + ARGV[4], ARGV[1])
redis.call('ZADD', KEYS[2], place, ARGV[1])
return {{1, '{RECEIVED}'}}
"""
)

# KEYS: record; ARGV: id, expiry ms, most buffered, reason. Answers 1, 0 when it is not open, -1 when there is no room.
BUFFER: Final = (
    _FUNCTIONS
    + f"""
expect_record(KEYS[1])
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= '{RECEIVED}' and status ~= 'buffered' then return 0 end
redis.call('ZADD', '{OPEN}', ARGV[2], ARGV[1])
if status == 'buffered' then return 1 end
if redis.call('ZCARD', '{BUFFERED}') >= tonumber(ARGV[3]) then return -1 end
redis.call('HSET', KEYS[1], 'status', 'buffered', 'reason', ARGV[4])
log(KEYS[1], 'buffered', ARGV[4])
redis.call('ZADD', '{BUFFERED}', ARGV[2], ARGV[1])
redis.call('XADD', '{OUTBOX}', '*', 'id', ARGV[1], 'status', 'buffered')
redis.call('PUBLISH', '{TOLD}' .. ARGV[1], 'buffered')
return 1
"""
)

# KEYS: record, target, the key's late signals; ARGV: id, outcome, reason, retention ms, how long it may come late (ms),
# whether to wait for claims. Answers 1, or 0 when it had an outcome before, or is being applied to a run just now.
DECIDE: Final = (
    _FUNCTIONS
    + f"""
expect_record(KEYS[1])
expect('zset', KEYS[2], KEYS[3])
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= '{RECEIVED}' and status ~= 'buffered' then return 0 end
local received = tonumber(redis.call('HGET', KEYS[1], 'received') or '')
if not received then expect('signal', KEYS[1]) end
if ARGV[6] == '1' then
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 4) == 'run:' and cjson.decode(fields[i + 1])['outcome'] == cjson.null then return 0 end
  end
end
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'reason', ARGV[3], 'decided', now_ms())
log(KEYS[1], ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('ZREM', '{OPEN}', ARGV[1])
redis.call('ZREM', '{BUFFERED}', ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if tonumber(ARGV[5]) > 0 then
  redis.call('ZADD', KEYS[3], received, ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', received - ARGV[5])
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
end
redis.call('XADD', '{OUTBOX}', '*', 'id', ARGV[1], 'status', ARGV[2])
redis.call('PUBLISH', '{TOLD}' .. ARGV[1], ARGV[2])
return 1
"""
)

# KEYS: record, the run's signals, stay, lease, the key's late signals; ARGV: id, run id, mark JSON, retention ms, the
# lease's token, all or one. Answers 1, or 0 when the signal is neither open nor among the late ones, the lease is lost,
# or the signal is for one run and another has it.
CLAIM: Final = (
    EXPECT
    + f"""
expect('hash', KEYS[1])
expect('zset', KEYS[2], KEYS[5])
expect('string', KEYS[3], KEYS[4])
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= '{RECEIVED}' and status ~= 'buffered' and not redis.call('ZSCORE', KEYS[5], ARGV[1]) then return 0 end
if redis.call('GET', KEYS[4]) ~= ARGV[5] then return 0 end
local place = tonumber(redis.call('HGET', KEYS[1], 'place') or '')
if not place then expect('signal', KEYS[1]) end
if ARGV[6] == 'one' then
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 4) == 'run:' and fields[i] ~= 'run:' .. ARGV[2] then
      local outcome = cjson.decode(fields[i + 1])['outcome']
      if outcome == cjson.null or outcome == 'applied' then return 0 end
    end
  end
end
redis.call('HSET', KEYS[1], 'run:' .. ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[2], place, ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[4])
return 1
"""
)

# KEYS: record, the run's signals, stay; ARGV: id, run id. For a signal that turned out to be for another wait.
DISCLAIM: Final = (
    EXPECT
    + """
expect('hash', KEYS[1])
expect('zset', KEYS[2])
expect('string', KEYS[3])
redis.call('HDEL', KEYS[1], 'run:' .. ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[3]) end
return 1
"""
)

# KEYS: record, target; ARGV: id, run id, mark JSON without an outcome, reason. For a signal that Prefect has lost: open
# again, in its old place. Answers 1, or 0 when it is not known any more.
REOPEN: Final = (
    _FUNCTIONS
    + f"""
local place = redis.call('HGET', KEYS[1], 'place')
if not place then return 0 end
redis.call('HSET', KEYS[1], 'run:' .. ARGV[2], ARGV[3], 'status', '{RECEIVED}', 'reason', ARGV[4])
redis.call('HDEL', KEYS[1], 'decided')
redis.call('PERSIST', KEYS[1])
log(KEYS[1], '{RECEIVED}', ARGV[4])
redis.call('ZADD', '{OPEN}', now_ms(), ARGV[1])
redis.call('ZADD', KEYS[2], place, ARGV[1])
return 1
"""
)

RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

# KEYS: record, the run's signals; ARGV: id, signal JSON, origin, run id, mark JSON, reason, received ms, retention ms,
# status. For what became of a wait without a signal. Answers 1, or 0 when it is known.
WITNESS: Final = (
    _FUNCTIONS
    + f"""
expect_record(KEYS[1])
expect('zset', KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local place = redis.call('INCR', '{SEQUENCE}')
redis.call('HSET', KEYS[1], 'signal', ARGV[2], 'origin', ARGV[3], 'place', place, 'received', ARGV[7],
  'decided', ARGV[7], 'status', ARGV[9], 'reason', ARGV[6], 'run:' .. ARGV[4], ARGV[5])
log(KEYS[1], ARGV[9], ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[8])
redis.call('ZADD', '{INDEX}', place, ARGV[1])
redis.call('ZADD', KEYS[2], place, ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[8])
redis.call('XADD', '{OUTBOX}', '*', 'id', ARGV[1], 'status', ARGV[9])
return 1
"""
)
