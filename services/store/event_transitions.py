"""What moves an event from step to step, each move one atomic script: routed, run created, refused, run ended."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from events.errors import Backpressure
from services.store.connection import EVEN_WHEN_FULL, AsyncRedis, text, translated
from services.store.events.event_history import compact_json, note_line, now_ms
from services.store.events.history import FAILED, MATCHED_BY, UNMATCHED
from services.store.events.journal import JOURNAL_AGAIN, ROUTER_GROUP, STREAM
from services.store.events.open_effects import FINISH, OPEN
from services.store.rules.parked_events import PARK
from services.store.rules.window_scripts import FORGET_CLOSED
from services.store.runs.created_runs import ACTIVE, RUN, RUNS
from services.store.runs.dispatch_queues import NOTIFY, QUEUE_FUNCTIONS, Dispatch, DispatchQueues
from services.store.unreadable import reading

MESSAGE_LIMIT: Final = 500
"""Characters of a run's state message that are kept."""

_WAITING_WHEN_FULL: Final = 200
"""How many runs may wait in the queues for the router to go on while Redis is full."""

FIRST_CHECK_MS: Final = 5_000
"""A new run's state is asked for after this time, if nothing was heard of it."""

CHECK_MS_EACH: Final = 20
"""With many open runs it is asked for later, by this much for each: reading states is work for Prefect, too."""

# ARGV: group, position, identity, now (ms), retention (ms), quiet (0 or 1), how many rules matched; then five counted
# groups: history lines; rules that matched; (queue, payload, token) for each run; (token, value) for other effects;
# (rule, salt) that the event is parked for.
# Answers 0 when the entry had been acknowledged before: then somebody else has done all this. It is acknowledged last:
# whatever may fail before that leaves it to be handled again.
_ROUTE: Final = (
    QUEUE_FUNCTIONS
    + PARK
    + FINISH
    + f"""
if #redis.call('XPENDING', '{STREAM}', ARGV[1], ARGV[2], ARGV[2], 1) == 0 then return 0 end
local position, id, now = ARGV[2], ARGV[3], ARGV[4]
local open = '{OPEN}' .. id
expect_finish(id)
expect('zset', '{UNMATCHED}', '{FAILED}')
local at = 8
at = at + tonumber(ARGV[at]) + 1
for i = 1, tonumber(ARGV[at]) do expect('zset', '{MATCHED_BY}' .. ARGV[at + i]) end
at = at + tonumber(ARGV[at]) + 1
for i = 1, tonumber(ARGV[at]) * 3, 3 do expect_queue(ARGV[at + i]) end
at = at + tonumber(ARGV[at]) * 3 + 1
at = at + tonumber(ARGV[at]) * 2 + 1
for i = 1, tonumber(ARGV[at]) * 2, 2 do expect_park(ARGV[at + i]) end
at = 8
local count = tonumber(ARGV[at])
for i = 1, count do remember(id, ARGV[at + i], ARGV[5]) end
if ARGV[6] == '1' and redis.call('EXISTS', open) == 0 then redis.call('HSET', open, '!quiet', '1') end
redis.call('HSET', open, '!matched', ARGV[7])
at = at + count + 1
count = tonumber(ARGV[at])
for i = 1, count do redis.call('ZADD', '{MATCHED_BY}' .. ARGV[at + i], now, position) end
if ARGV[7] == '0' and ARGV[6] == '0' then redis.call('ZADD', '{UNMATCHED}', now, position) end
at = at + count + 1
count = tonumber(ARGV[at])
for i = 1, count * 3, 3 do
  queue_push(ARGV[at + i], ARGV[at + i + 1])
  local known = redis.call('HGET', open, ARGV[at + i + 2])
  if not known or string.sub(known, 1, 1) == '!' then redis.call('HSET', open, ARGV[at + i + 2], '') end
end
if count > 0 then queue_notify() end
at = at + count * 3 + 1
count = tonumber(ARGV[at])
for i = 1, count * 2, 2 do
  if ARGV[at + i + 1] == '' then
    redis.call('HSETNX', open, ARGV[at + i], '')  -- a window that was quicker has closed it already
  else
    redis.call('HSET', open, ARGV[at + i], ARGV[at + i + 1])
  end
  if string.sub(ARGV[at + i + 1], 1, 1) == '!' then redis.call('ZADD', '{FAILED}', now, position) end
end
at = at + count * 2 + 1
count = tonumber(ARGV[at])
for i = 1, count * 2, 2 do park(ARGV[at + i], position, ARGV[at + i + 1]) end
finish(id)
redis.call('XACK', '{STREAM}', ARGV[1], ARGV[2])
return 1
"""
)

# ARGV: queue, entry, run id, rule, deployment, token, now, events as JSON [[identity, position]], history line,
# retention, url. Answers 0 if the run was known before, as after a replay that found nothing to repair.
_CREATED: Final = (
    QUEUE_FUNCTIONS
    + FINISH
    + f"""
local run = '{RUN}' .. ARGV[3]
local events = cjson.decode(ARGV[8])
expect_queue(ARGV[1])
expect('hash', run)
expect('zset', '{RUNS}')
expect('set', '{ACTIVE}' .. ARGV[4])
for _, event in ipairs(events) do expect_finish(event[1]) end
queue_drop(ARGV[1], ARGV[2])
if redis.call('EXISTS', run) == 1 then
  if not redis.call('ZSCORE', '{RUNS}', ARGV[3]) then  -- it is over: only a replay, or a damaged event, waits for it
    local state = string.match(redis.call('HGET', run, 's') or '', '^%d+ (%u+)$') or 'CANCELLED'
    local value = ended(ARGV[3], ARGV[11], ARGV[4], ARGV[5], state, state, '')
    for _, event in ipairs(events) do
      if redis.call('HGET', '{OPEN}' .. event[1], ARGV[6]) == '' then
        redis.call('HSET', '{OPEN}' .. event[1], ARGV[6], value)
        finish(event[1])
      end
    end
  end
  return 0
end
redis.call('HSET', run, 'e', ARGV[8], 'r', ARGV[4], 'd', ARGV[5], 't', ARGV[6])
local wait = math.max({FIRST_CHECK_MS}, redis.call('ZCARD', '{RUNS}') * {CHECK_MS_EACH})
redis.call('ZADD', '{RUNS}', ARGV[7] + wait, ARGV[3])
redis.call('SADD', '{ACTIVE}' .. ARGV[4], ARGV[3])
for _, event in ipairs(events) do remember(event[1], ARGV[9], ARGV[10]) end
return 1
"""
)

# ARGV: queue, entry, token, now, events as JSON, retention; then for each event its history line and its value.
_REFUSED: Final = (
    QUEUE_FUNCTIONS
    + FINISH
    + f"""
local events = cjson.decode(ARGV[5])
expect_queue(ARGV[1])
expect('zset', '{FAILED}')
for _, event in ipairs(events) do expect_finish(event[1]) end
if queue_drop(ARGV[1], ARGV[2]) == 0 then return 0 end
for i, event in ipairs(events) do
  remember(event[1], ARGV[5 + 2 * i], ARGV[6])
  redis.call('ZADD', '{FAILED}', ARGV[4], event[2])
  if redis.call('HEXISTS', '{OPEN}' .. event[1], ARGV[3]) == 1 then
    redis.call('HSET', '{OPEN}' .. event[1], ARGV[3], ARGV[6 + 2 * i])
    finish(event[1])
  end
end
return 1
"""
)

# ARGV: run id, state type, state name, message, at (ms), final (0 or 1), url, history line, now, retention.
# Answers -1 for a run that is not known, 0 for a state that is known or overtaken, 1 for news, 2 for a run that had
# failed before and has completed now.
_STATE: Final = (
    QUEUE_FUNCTIONS
    + FINISH
    + f"""
local key = '{RUN}' .. ARGV[1]
expect('hash', key)
local run = redis.call('HMGET', key, 'e', 'r', 'd', 't', 's')
if not (run[1] and run[2] and run[3] and run[4]) then
  expect('zset', '{RUNS}')
  redis.call('ZREM', '{RUNS}', ARGV[1])  -- nobody could ever say of it that it is over
  return -1
end
local events = cjson.decode(run[1])
expect('zset', '{RUNS}', '{FAILED}')
expect('set', '{ACTIVE}' .. run[2])
expect('stream', '{NOTIFY}')
for _, event in ipairs(events) do expect_finish(event[1]) end
local state, at, final = ARGV[2], tonumber(ARGV[5]), ARGV[6] == '1'
local before = ''
if run[5] then
  local known_at
  known_at, before = string.match(run[5], '^(%d+) (.*)$')
  if not known_at then expect('run that Sluice created', key) end
  known_at = tonumber(known_at)
  if known_at > at or before == state then
    if final and before == state then redis.call('ZREM', '{RUNS}', ARGV[1]) end
    return 0
  end
end
redis.call('HSET', key, 's', ARGV[5] .. ' ' .. state)
for _, event in ipairs(events) do remember(event[1], ARGV[8], ARGV[10]) end
if not final then
  redis.call('ZADD', '{RUNS}', ARGV[9] + {FIRST_CHECK_MS}, ARGV[1])
  redis.call('SADD', '{ACTIVE}' .. run[2], ARGV[1])
  redis.call('PERSIST', key)
  return 1
end
redis.call('ZREM', '{RUNS}', ARGV[1])
redis.call('SREM', '{ACTIVE}' .. run[2], ARGV[1])
redis.call('PEXPIRE', key, ARGV[10])
queue_notify()  -- a limit on active runs may let the next one through
local value = ended(ARGV[1], ARGV[7], run[2], run[3], state, ARGV[3], ARGV[4])
for _, event in ipairs(events) do
  if state ~= 'COMPLETED' then redis.call('ZADD', '{FAILED}', ARGV[5], event[2]) end
  if redis.call('HEXISTS', '{OPEN}' .. event[1], run[4]) == 1 then
    redis.call('HSET', '{OPEN}' .. event[1], run[4], value)
    finish(event[1])
  end
end
if state == 'COMPLETED' and before ~= '' and before ~= 'RUNNING' then return 2 end
return 1
"""
)

# ARGV: queue, entry, retention, events as JSON [[identity, position]], history line, then
# (queue, payload) for each part.
# Answers 0 if somebody else has dealt with the entry.
_DIVIDED: Final = (
    QUEUE_FUNCTIONS
    + FINISH
    + """
if queue_drop(ARGV[1], ARGV[2]) == 0 then return 0 end
for i = 6, #ARGV, 2 do queue_push(ARGV[i], ARGV[i + 1]) end
queue_notify()
for _, event in ipairs(cjson.decode(ARGV[4])) do remember(event[1], ARGV[5], ARGV[3]) end
return 1
"""
)

# A window lets go of events. ARGV: token to close, its value, now, retention, events as JSON [[identity, position]], id
# of the closed window that is done with this or '', number of dispatches, (queue, payload, token) for each, then a
# history line for each event (empty: none). Answers how many of the events still had the token open.
_RELEASE: Final = (
    QUEUE_FUNCTIONS
    + FINISH
    + FORGET_CLOSED
    + f"""
local count = tonumber(ARGV[7])
local events = cjson.decode(ARGV[5])
expect('zset', '{FAILED}')
for i = 1, count * 3, 3 do expect_queue(ARGV[7 + i]) end
for _, event in ipairs(events) do expect_finish(event[1]) end
if ARGV[6] ~= '' and not forget_closed(ARGV[6]) then return 0 end
local tokens = {{}}
for i = 1, count * 3, 3 do
  queue_push(ARGV[7 + i], ARGV[8 + i])
  tokens[#tokens + 1] = ARGV[9 + i]
end
if count > 0 then queue_notify() end
local line_at = 7 + count * 3
local open_count = 0
for i, event in ipairs(events) do
  local line = ARGV[line_at + i]
  if line ~= '' then remember(event[1], line, ARGV[4]) end
  if string.sub(ARGV[2], 1, 1) == '!' then redis.call('ZADD', '{FAILED}', ARGV[3], event[2]) end
  local open = '{OPEN}' .. event[1]
  open_count = open_count + redis.call('HEXISTS', open, ARGV[1])
  redis.call('HSET', open, ARGV[1], ARGV[2])
  for _, token in ipairs(tokens) do redis.call('HSETNX', open, token, '') end
  if redis.call('HEXISTS', open, '!matched') == 0 then redis.call('PEXPIRE', open, ARGV[4]) end
  finish(event[1])
end
return open_count
"""
)


# ARGV: queue, rule, then (entry, position, salt) for each. Answers how many were put into the journal again.
_REJUDGE: Final = (
    QUEUE_FUNCTIONS
    + JOURNAL_AGAIN
    + """
expect_queue(ARGV[1])
local moved = 0
for i = 3, #ARGV, 3 do
  if journal_again(ARGV[i + 1], ARGV[2], ARGV[i + 2]) then
    queue_drop(ARGV[1], ARGV[i])
    moved = moved + 1
  end
end
return moved
"""
)


@dataclass(frozen=True, slots=True)
class Routed:
    """Everything that the rules made of one journal entry."""

    identity: str
    position: str
    lines: Sequence[bytes]
    """What its history gets: the verdicts, and what they led to at once."""
    matched: Sequence[str]
    dispatches: Sequence[Dispatch] = ()
    effects: Sequence[tuple[str, str]] = ()
    """Effects that are not runs: (token, value); see `dead_value` and `OPEN_VALUE`."""
    parked: Sequence[str] = ()
    """Rules that keep the event for later; each also has its `parked_token` open among the effects."""
    salt: str | None = None
    quiet: bool = False
    """A replay: what comes of it is not announced as finished a second time."""


@dataclass(frozen=True, slots=True)
class Made:
    """A dispatch at its place in a queue that became the flow run ``run_id``."""

    entry: str
    dispatch: Dispatch
    run_id: str


OPEN_VALUE: Final = ""
"""The value of an effect that is still to come."""

DONE_VALUE: Final = "."
"""The value of an effect that came and has nothing to report."""


@dataclass(frozen=True, slots=True)
class StateNews:
    """What a run's state change was to us."""

    known: bool
    """Whether the run is one of ours."""
    new: bool
    recovered: bool = False
    """The run had failed before, and has completed now."""


def window_token(rule: str) -> str:
    """The effect that an event waits for while a window of ``rule`` holds it."""
    return f"{rule}~window"


def dead_value(letter_id: str, rule: str | None, code: str, reason: str) -> str:
    """The value of an effect that became a dead letter."""
    return "!" + _json({"letter_id": letter_id, "rule": rule, "code": code, "reason": reason})


class EventTransitions:
    """The scripts, with their arguments put together; all are safe to repeat.

    Every method raises `TransientError` when Redis is out of reach and `Backpressure` when it is full.
    """

    def __init__(
        self,
        redis: AsyncRedis,
        *,
        retention_seconds: float,
        group: str = ROUTER_GROUP,
        run_url: Callable[[str], str] = lambda _: "",
    ) -> None:
        """``run_url`` says where Prefect shows a run."""
        self._redis = redis
        self._run_url = run_url
        self._group = group
        self._retention_ms = int(retention_seconds * 1000)
        self._queues = DispatchQueues(redis)
        # What was accepted must come through even when Redis is full; taking in more work must not.
        self._route = redis.register_script("#!lua\n" + _ROUTE)
        self._route_when_full = redis.register_script(EVEN_WHEN_FULL + _ROUTE)
        self._created = redis.register_script(EVEN_WHEN_FULL + _CREATED)
        self._refused = redis.register_script(EVEN_WHEN_FULL + _REFUSED)
        self._divided = redis.register_script(EVEN_WHEN_FULL + _DIVIDED)
        self._state = redis.register_script(EVEN_WHEN_FULL + _STATE)
        self._release = redis.register_script(EVEN_WHEN_FULL + _RELEASE)
        self._rejudge = redis.register_script(EVEN_WHEN_FULL + _REJUDGE)

    async def route(self, batch: Sequence[Routed]) -> None:
        """Record the verdicts, put the runs into their queues and acknowledge the entries; one round trip.

        When Redis is full, this goes on only while the queues are short: what they hold must be done first.
        """
        try:
            await self._run_all([(self._route, self._route_arguments(one)) for one in batch])
        except Backpressure:
            waiting = sum((await self._queues.lengths(await self._queues.names())).values())
            if waiting > _WAITING_WHEN_FULL:
                raise
            few = batch[:_WAITING_WHEN_FULL]
            await self._run_all([(self._route_when_full, self._route_arguments(one)) for one in few])
            if len(few) < len(batch):
                raise

    async def created(self, made: Sequence[Made]) -> list[bool]:
        """Take created runs out of their queues and remember them; answers, for each, whether the run was new to us."""
        now = now_ms()
        calls = []
        for one in made:
            action = one.dispatch.action
            line = _json(["r", now, one.run_id, action.rule, action.deployment])
            arguments = [one.dispatch.queue, one.entry, one.run_id, action.rule, action.deployment, one.dispatch.token]
            events = _events_of(one.dispatch)
            calls.append(
                (self._created, [*arguments, now, events, line, self._retention_ms, self._run_url(one.run_id)])
            )
        return [bool(answer) for answer in await self._run_all(calls)]

    async def refused(self, entry: str, dispatch: Dispatch, letters: Sequence[tuple[str, str, str]]) -> None:
        """Take a dispatch that can never be done out of its queue; for each event its letter's (id, code, reason)."""
        now = now_ms()
        arguments: list[Any] = [dispatch.queue, entry, dispatch.token, now, _events_of(dispatch), self._retention_ms]
        for letter_id, code, reason in letters:
            arguments.append(_json(["d", now, letter_id, dispatch.action.rule, code, reason]))
            arguments.append(dead_value(letter_id, dispatch.action.rule, code, reason))
        with translated():
            await self._refused(args=arguments)

    async def divided(self, entry: str, dispatch: Dispatch, parts: Sequence[Dispatch], reason: str) -> None:
        """Put ``parts`` of a dispatch that can never be done as a whole in its place; each of its events is in one."""
        line = note_line(
            dispatch.action.rule,
            f"refused together with {len(dispatch.positions) - 1} others, tried in parts: {reason}",
        )
        arguments: list[Any] = [dispatch.queue, entry, self._retention_ms, _events_of(dispatch), compact_json(line)]
        for part in parts:
            arguments += [part.queue, part.to_json()]
        with translated():
            await self._divided(args=arguments)

    async def run_state(
        self, *, run_id: str, state_type: str, state_name: str, message: str, at_ms: int, final: bool, url: str
    ) -> StateNews:
        """Record that a run entered a state; ``final`` states settle what its events wait for."""
        short = message[:MESSAGE_LIMIT]
        line = _json(["s", at_ms, run_id, state_type, state_name, short if final else ""])
        arguments: list[Any] = [
            run_id,
            state_type,
            state_name,
            short,
            at_ms,
            int(final),
            url,
            line,
            now_ms(),
            self._retention_ms,
        ]
        with translated():
            answer = int(await self._state(args=arguments))
        return StateNews(known=answer >= 0, new=answer > 0, recovered=answer == 2)  # noqa: PLR2004 - see the script

    async def release(
        self,
        *,
        token: str,
        events: Sequence[tuple[str, str]],
        dispatches: Sequence[Dispatch] = (),
        value: str = DONE_VALUE,
        lines: Sequence[bytes | str] = (),
        window: str = "",
    ) -> int:
        """Close the effect ``token`` of ``events`` (each an identity and a position), which a window had kept open.

        ``dispatches`` go into their queues in the same step, and every event then waits for their runs instead; the
        closed ``window`` (its id) is forgotten with it, and where it is gone already nothing is done.
        Answers how many of the events had the effect open.
        """
        arguments: list[Any] = [token, value, now_ms(), self._retention_ms, json.dumps(events), window, len(dispatches)]
        for one in dispatches:
            arguments += [one.queue, one.to_json(), one.token]
        arguments += list(lines) or [""] * len(events)
        with translated():
            return int(await self._release(args=arguments))

    async def rejudge(self, waiting: Sequence[tuple[str, Dispatch]]) -> int:
        """Let the rules of now decide again on what waits in a queue (each with its entry); answers on how many.

        Only dispatches of one event can be taken back: what several were gathered for stays as it is.
        """
        single = [(entry, one) for entry, one in waiting if len(one.positions) == 1]
        if not single:
            return 0
        arguments = [single[0][1].queue, single[0][1].action.rule]
        for entry, one in single:
            arguments += [entry, one.positions[0], one.action.salt or ""]
        with translated():
            return int(await self._rejudge(args=arguments))

    async def open_effects(self, identity: str) -> list[str]:
        """What the event still waits for: ``rule#action`` for a run, ``rule~window`` while a window holds it."""
        with translated():
            fields = await self._redis.hgetall(OPEN + identity)
        with reading(OPEN + identity):
            return sorted(text(name) for name, value in fields.items() if not value)

    def _route_arguments(self, one: Routed) -> list[Any]:
        arguments: list[Any] = [self._group, one.position, one.identity, now_ms(), self._retention_ms]
        arguments += [int(one.quiet), len(one.matched)]
        arguments += [len(one.lines), *one.lines]
        arguments += [len(one.matched), *one.matched]
        arguments.append(len(one.dispatches))
        for dispatch in one.dispatches:
            arguments += [dispatch.queue, dispatch.to_json(), dispatch.token]
        arguments.append(len(one.effects))
        for token, value in one.effects:
            arguments += [token, value]
        arguments.append(len(one.parked))
        for rule in one.parked:
            arguments += [rule, one.salt or ""]
        return arguments

    async def _run_all(self, calls: Sequence[tuple[Any, list[Any]]]) -> list[Any]:
        """One round trip: the script is loaded along with its calls, which costs less than asking whether it is."""
        if not calls:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        script = calls[0][0]
        pipeline.script_load(script.script)
        for _, arguments in calls:
            pipeline.evalsha(script.sha, 0, *arguments)
        with translated():
            answers = await cast(Awaitable[list[Any]], pipeline.execute())
        return answers[1 : len(calls) + 1]


def _events_of(dispatch: Dispatch) -> str:
    return json.dumps(list(zip(dispatch.action.identities, dispatch.positions, strict=True)))


def _json(value: Any) -> str:
    return compact_json(value).decode()
