"""Moves an event from step to step, each step one atomic script: routed, run created, refused, run ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from events.dead_letter import DeadLetter
from events.errors import Backpressure
from services.store.connection import AsyncRedis, text
from services.store.events.event_history import compact_json, note_line, now_ms, packed
from services.store.events.open_effects import OPEN
from services.store.keys import ROUTER_GROUP
from services.store.runs.created_runs import RUN
from services.store.runs.dispatch_queues import Dispatch, DispatchQueues
from services.store.scripts import EVEN_WHEN_FULL, Script, run_all
from services.store.unreadable import reading

MESSAGE_LIMIT: Final = 500
"""Characters of a run's state message that are kept."""

_REASON_LIMIT: Final = 1000
"""Characters of a dead letter's reason that an event's history keeps."""

_WAITING_WHEN_FULL: Final = 200
"""Number of queued runs up to which the router continues while Redis is full."""

FIRST_CHECK_MS: Final = 5_000
"""Time after which a new run's state is read, if no event about it was received."""

CHECK_MS_EACH: Final = 20
"""Added to it for each open run, because reading states is work for Prefect, too."""

# Accepted events must be handled even when Redis is full; new ones must not be accepted.
_ROUTE: Final = Script("events/route")
_ROUTE_WHEN_FULL: Final = Script("events/route", flags=EVEN_WHEN_FULL)
_CREATED: Final = Script("events/created")
_REFUSED: Final = Script("events/refused")
_DIVIDED: Final = Script("events/divided")
_RUN_STATE: Final = Script("events/run_state")
_RELEASE: Final = Script("events/release")
_REJUDGE: Final = Script("events/rejudge")
_REOPEN: Final = Script("events/reopen")

START_AGAIN_MS: Final = 30_000
"""Time within which a run that is to start again must be scheduled; else its old result stays."""


@dataclass(frozen=True, slots=True)
class Routed:
    """The effects of the rules on one journal entry."""

    identity: str
    position: str
    lines: Sequence[bytes]
    """Lines for its history: the verdicts, and their immediate effects."""
    matched: Sequence[str]
    dispatches: Sequence[Dispatch] = ()
    effects: Sequence[tuple[str, str]] = ()
    """Effects that are not runs: (token, value); see `dead_value` and `OPEN_VALUE`."""
    parked: Sequence[str] = ()
    """Rules that keep the event for later; each also has its `parked_token` open among the effects."""
    salt: str | None = None
    quiet: bool = False
    """A replay: it makes no second entry of finished events."""


@dataclass(frozen=True, slots=True)
class Made:
    """A queued dispatch that became the flow run ``run_id``."""

    entry: str
    dispatch: Dispatch
    run_id: str


OPEN_VALUE: Final = ""
"""The value of an effect that is still to come."""

DONE_VALUE: Final = "."
"""The value of a final effect without anything to report."""


@dataclass(frozen=True, slots=True)
class StateNews:
    """How a run's new state compares with the recorded one; the other fields are set only if it is news."""

    known: bool
    """Whether Sluice created the run."""
    new: bool
    recovered: bool = False
    """The run had failed before, and has completed now."""
    rule: str = ""
    before: str = ""
    """The type of the state before, if one was recorded."""
    before_ms: int = 0
    created_ms: int | None = None
    planned_ms: int | None = None
    """When it was scheduled to start, if later than its creation."""
    journalled_ms: int = 0
    """When the first of its events was journalled."""


def window_token(rule: str) -> str:
    """The effect that an event waits for while a window of ``rule`` holds it."""
    return f"{rule}~window"


def dead_value(letter: DeadLetter) -> str:
    """The value of an effect that became a dead letter."""
    said = {"letter_id": letter.id, "rule": letter.rule, "code": letter.code, "reason": letter.reason}
    return "!" + compact_json(said).decode()


def dead_line(letter: DeadLetter) -> bytes:
    """The history line of an effect that became a dead letter."""
    failed_ms = int(letter.last_failed.timestamp() * 1000)
    return packed(["d", failed_ms, letter.id, letter.rule, letter.code, letter.reason[:_REASON_LIMIT]])


class EventTransitions:
    """Moves events on; every step is safe to repeat.

    Every method raises `TransientError` when Redis is out of reach and `Backpressure` when it is full.
    """

    def __init__(
        self, redis: AsyncRedis, *, retention_seconds: float, run_url: Callable[[str], str] = lambda _: ""
    ) -> None:
        """``run_url`` says where Prefect shows a run."""
        self._redis = redis
        self._run_url = run_url
        self._retention_ms = int(retention_seconds * 1000)
        self._queues = DispatchQueues(redis)

    async def route(self, batch: Sequence[Routed]) -> None:
        """Record the verdicts, put the runs into their queues and acknowledge the entries; one round trip.

        When Redis is full, this works only while the queues are short: their runs must be created first.
        """
        try:
            await self._run_all(_ROUTE, [self._route_values(one) for one in batch])
        except Backpressure:
            waiting = sum((await self._queues.lengths(await self._queues.names())).values())
            if waiting > _WAITING_WHEN_FULL:
                raise
            few = batch[:_WAITING_WHEN_FULL]
            await self._run_all(_ROUTE_WHEN_FULL, [self._route_values(one) for one in few])
            if len(few) < len(batch):
                raise

    async def created(self, made: Sequence[Made]) -> list[bool]:
        """Take created runs out of their queues and record them; return, for each, whether the run was new."""
        now = now_ms()
        calls = [
            {
                "queue": one.dispatch.queue,
                "entry": one.entry,
                "run_id": one.run_id,
                "rule": (action := one.dispatch.action).rule,
                "deployment": action.deployment,
                "token": one.dispatch.token,
                "now_ms": now,
                "events": json.dumps(_origins(one.dispatch)),
                "line": compact_json(["r", now, one.run_id, action.rule, action.deployment]),
                "retention_ms": self._retention_ms,
                "url": self._run_url(one.run_id),
                "first_check_ms": FIRST_CHECK_MS,
                "check_ms_each": CHECK_MS_EACH,
                "planned_ms": "" if (planned := action.planned_after(now / 1000)) is None else int(planned * 1000),
            }
            for one in made
        ]
        return [bool(answer) for answer in await self._run_all(_CREATED, calls)]

    async def refused(self, entry: str, dispatch: Dispatch, letters: Sequence[DeadLetter]) -> None:
        """Take a dispatch that can never succeed out of its queue; each of its events has a letter, in order."""
        origins = _origins(dispatch)
        await _REFUSED(
            self._redis,
            queue=dispatch.queue,
            entry=entry,
            token=dispatch.token,
            now_ms=now_ms(),
            retention_ms=self._retention_ms,
            events=[
                (*origin, dead_line(letter), dead_value(letter))
                for origin, letter in zip(origins, letters, strict=True)
            ],
        )

    async def divided(self, entry: str, dispatch: Dispatch, parts: Sequence[Dispatch], reason: str) -> None:
        """Replace a dispatch that can never succeed as a whole by ``parts``; each of its events is in one of them."""
        said = f"refused together with {len(dispatch.positions) - 1} others, tried in parts: {reason}"
        await _DIVIDED(
            self._redis,
            queue=dispatch.queue,
            entry=entry,
            retention_ms=self._retention_ms,
            line=compact_json(note_line(dispatch.action.rule, said)),
            identities=dispatch.action.identities,
            parts=[(part.queue, part.to_json()) for part in parts],
        )

    async def run_state(
        self, *, run_id: str, state_type: str, state_name: str, message: str, at_ms: int, final: bool, url: str
    ) -> StateNews:
        """Record that a run entered a state; ``final`` states settle what its events wait for."""
        short = message[:MESSAGE_LIMIT]
        answer = await _RUN_STATE(
            self._redis,
            run_id=run_id,
            state=state_type,
            state_name=state_name,
            message=short,
            at_ms=at_ms,
            final=int(final),
            url=url,
            line=compact_json(["s", at_ms, run_id, state_type, state_name, short if final else ""]),
            now_ms=now_ms(),
            retention_ms=self._retention_ms,
            first_check_ms=FIRST_CHECK_MS,
        )
        with reading(RUN + run_id):
            return _news(*answer)

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
        Returns how many of the events had the effect open.
        """
        own_lines = list(lines) or [b""] * len(events)
        return int(
            await _RELEASE(
                self._redis,
                token=token,
                value=value,
                now_ms=now_ms(),
                retention_ms=self._retention_ms,
                closed=window,
                events=[(*event, line) for event, line in zip(events, own_lines, strict=True)],
                dispatches=[(one.queue, one.to_json(), one.token) for one in dispatches],
            )
        )

    async def rejudge(self, waiting: Sequence[tuple[str, Dispatch]]) -> int:
        """Journal the events of queued dispatches (each with its entry) again, for the rules in force; return how many.

        Only dispatches of a single event can be taken back; those of several gathered events stay.
        """
        single = [(entry, one) for entry, one in waiting if len(one.positions) == 1]
        if not single:
            return 0
        first = single[0][1]
        waiting_now = [(entry, one.positions[0], one.action.salt or "") for entry, one in single]
        return int(await _REJUDGE(self._redis, queue=first.queue, rule=first.action.rule, waiting=waiting_now))

    async def reopen(
        self, identity: str, matched: int, effects: Sequence[tuple[str, str]], again: Sequence[tuple[str, str]]
    ) -> None:
        """Reopen a finished event, which is finished once more when the runs of ``again`` have ended again.

        ``effects`` are the unchanged effects, as tokens and values; ``again`` has ids of runs and the tokens of their
        effects.
        """
        await _REOPEN(
            self._redis,
            identity=identity,
            matched=matched,
            now_ms=now_ms(),
            give_up_ms=START_AGAIN_MS,
            effects=effects,
            again=again,
        )

    async def open_effects(self, identity: str) -> list[str]:
        """Return the effects that the event waits for: ``rule#action`` for a run, ``rule~window`` for a window."""
        fields = await self._redis.hgetall(OPEN + identity)
        with reading(OPEN + identity):
            return sorted(text(name) for name, value in fields.items() if not value)

    def _route_values(self, one: Routed) -> dict[str, Any]:
        """Return the arguments of the script for one decision."""
        return {
            "group": ROUTER_GROUP,
            "position": one.position,
            "identity": one.identity,
            "now_ms": now_ms(),
            "retention_ms": self._retention_ms,
            "quiet": int(one.quiet),
            "match_count": len(one.matched),
            "lines": one.lines,
            "matched": one.matched,
            "dispatches": [(dispatch.queue, dispatch.to_json(), dispatch.token) for dispatch in one.dispatches],
            "effects": one.effects,
            "parked": [(rule, one.salt or "") for rule in one.parked],
        }

    async def _run_all(self, script: Script, calls: Sequence[Mapping[str, Any]]) -> list[Any]:
        return await run_all(self._redis, script, calls) if calls else []


def _news(code: int, rule: bytes = b"", *facts: bytes) -> StateNews:
    """Parse the value that the script returned."""
    if code <= 0:
        return StateNews(known=code == 0, new=False)
    before, created, planned, position = map(text, facts)
    before_ms, _, state = before.partition(" ")
    return StateNews(
        known=True,
        new=True,
        recovered=code == 2,  # noqa: PLR2004 - see the script
        rule=text(rule),
        before=state,
        before_ms=int(before_ms or 0),
        created_ms=int(created) if created else None,
        planned_ms=int(planned) if planned else None,
        journalled_ms=int(position.partition("-")[0]),
    )


def _origins(dispatch: Dispatch) -> list[tuple[str, str]]:
    """The identity and the position of each event that led to the dispatch."""
    return list(zip(dispatch.action.identities, dispatch.positions, strict=True))
