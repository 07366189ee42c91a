"""Publishes to Prefect's event feed what happens beyond runs: dead letters, and the begin and end of problems.

It reads the roles' reports and the dead letters, and no other part waits for it: what cannot be published now is
published later, and what is too much is counted and dropped.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from events.dead_letter import DeadLetter
from services.common.backoff import Backoff
from services.operations.in_prefect.feed_state import FeedState, read_feed_state, write_feed_state
from services.operations.in_prefect.troubles import Trouble, troubles_of
from services.operations.readiness import Readiness
from services.operations.upkeep.leased_job import run_leased
from services.prefect_api.client import PrefectApi
from services.prefect_api.events import emit, event_resource, feed_event, related
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters
from services.store.lease import Lease

LETTER_EVENT: Final = "sluice.dead-letter.kept"

TURN_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 10.0
"""How long a problem that needs time must last before it is published; its end is published at once."""

_LETTERS_AT_ONCE: Final = 100
_MOST_LETTERS: Final = 1000
"""Number of new dead letters that are published one by one, the newest; the others are counted as dropped."""

_LATE_SECONDS: Final = 60
"""So much later than a newer one a dead letter may be kept and is still told of: clocks differ, and writes are late."""

_MOST_PENDING: Final = 500
_NAMES: Final = uuid.UUID("6a3c3f0e-53cb-4c6b-8a51-17a0a8c2c9f4")

log = structlog.get_logger()


@dataclass(kw_only=True)
class PrefectFeed:
    """A part of each router, active in the one that holds the lease; Prefect recognises repeated events by id."""

    redis: AsyncRedis
    prefect: PrefectApi
    readiness: Callable[[], Awaitable[Readiness]]
    lease: Lease
    turn_seconds: float = TURN_SECONDS
    settle_seconds: float = SETTLE_SECONDS
    _state: FeedState | None = None
    _seen: dict[str, float] = field(default_factory=dict)
    """Since when problems that are not published yet have lasted."""
    _pending: deque[dict[str, Any]] = field(default_factory=deque)
    _told: int = 0
    _dropped: int = 0

    def __post_init__(self) -> None:
        self._letters = DeadLetters(self.redis)
        self._trouble = Backoff("tell Prefect's event feed", first_seconds=1, longest_seconds=30)

    async def run(self) -> None:
        """Publish until cancelled."""
        await run_leased(
            self.turn, lease=self.lease, seconds=self.turn_seconds, trouble=self._trouble, ended=self._forget
        )

    def _forget(self) -> None:
        self._state = None
        self._seen.clear()

    async def turn(self) -> None:
        """Publish what is new since the last turn."""
        if self._state is None:
            self._state = await read_feed_state(self.redis)
        if self._state is None:
            self._state = FeedState(letters_ms=int(time.time() * 1000))
            await write_feed_state(self.redis, self._state)
        now = troubles_of(await self.readiness())
        if self._note(self._state, now):
            await write_feed_state(self.redis, self._state)
        while self._pending:
            batch = list(self._pending)[:_LETTERS_AT_ONCE]
            await emit(self.prefect, batch)
            self._told += len(batch)
            for _ in range(min(len(batch), len(self._pending))):
                self._pending.popleft()
        while await self._tell_letters(self._state) == _LETTERS_AT_ONCE:
            pass

    def _note(self, state: FeedState, now: Mapping[str, Trouble]) -> bool:
        """Add begins and ends of problems to the pending events; return whether there were any."""
        moment = time.time()
        self._seen = {key: self._seen.get(key, moment) for key in now if key not in state.troubles}
        due = {
            key: since
            for key, since in self._seen.items()
            if not now[key].needs_time or moment - since >= self.settle_seconds
        }
        over = [key for key in state.troubles if key not in now]
        for key, since in due.items():
            del self._seen[key]
            state.troubles[key], state.since[key] = now[key], since
            self._append(_event(now[key].began, now[key], since=since))
        for key in over:
            trouble, since = state.troubles.pop(key), state.since.pop(key)
            self._append(_event(trouble.ended, trouble, since=since, ended=moment))
        return bool(due or over)

    def _append(self, body: dict[str, Any]) -> None:
        if len(self._pending) >= _MOST_PENDING:
            self._pending.popleft()
            self._drop(1)
        self._pending.append(body)

    def _drop(self, count: int) -> None:
        self._dropped += count
        log.warning("events for prefect's feed were dropped: too many at once", dropped=count, in_all=self._dropped)

    async def _tell_letters(self, state: FeedState) -> int:
        """Publish the next dead letters, and return their number."""
        skipped, found = await self._letters.failed_since(
            state.letters_ms, known=state.published, limit=_LETTERS_AT_ONCE, most=_MOST_LETTERS
        )
        if skipped:
            self._drop(skipped)
        if not found:
            return 0
        await emit(self.prefect, [letter_event(letter) for _, letter in found])
        self._told += len(found)
        state.know(
            {letter.id: failed_ms for failed_ms, letter in found}, late_ms=_LATE_SECONDS * 1000, most=_MOST_LETTERS
        )
        await write_feed_state(self.redis, state)
        return len(found)

    def status(self) -> Mapping[str, Any]:
        """For the role's report."""
        return self._trouble.status(told=self._told, waiting=len(self._pending), dropped=self._dropped)


def letter_event(letter: DeadLetter) -> dict[str, Any]:
    """Return the event about a dead letter, for each time that it fails."""
    known = [related("rule", f"sluice.rule.{letter.rule}", letter.rule)] if letter.rule else []
    if letter.identity:
        known.append(event_resource(letter.identity))
    return feed_event(
        LETTER_EVENT,
        resource=f"sluice.dead-letter.{letter.id}",
        name=f"dead letter {letter.code} ({letter.kind})",
        related=[*known, related("source", f"sluice.source.{letter.source}", letter.source)],
        event_id=str(uuid.uuid5(_NAMES, f"{letter.id} {letter.last_failed.isoformat()}")),
        occurred=letter.last_failed,
        payload={
            "kind": letter.kind,
            "code": letter.code,
            "reason": letter.reason,
            "rule": letter.rule,
            "event_id": letter.event_id,
            "source": letter.source,
            "attempts": letter.attempts,
            "first_failed": letter.first_failed.isoformat(),
            "look": f"sluice dead show {letter.id}",
            "replay": f"sluice dead replay {letter.id}",
        },
    )


def _event(name: str, trouble: Trouble, *, since: float, ended: float | None = None) -> dict[str, Any]:
    """Return the event of Prefect's feed for the beginning or end of a trouble; its id follows from both times."""
    kind, _, rest = trouble.subject.removeprefix("sluice.").partition(".")
    return feed_event(
        name,
        resource=trouble.subject,
        name=f"{kind} {rest}".strip(),
        event_id=str(uuid.uuid5(_NAMES, f"{trouble.key} {since} {ended}")),
        occurred=datetime.fromtimestamp(since if ended is None else ended, UTC),
        payload=trouble.payload(lasted_seconds=None if ended is None else ended - since),
    )
