"""Records of the canary's flights, and of the data that a flight leaves until it is deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from services.store.connection import AsyncRedis
from services.store.keys import Key
from services.store.unreadable import readable_one

STATE: Final = "sluice:canary"
"""The result of the last flight, as JSON."""

REMAINS: Final = "sluice:canary:remains"
"""List of the remains of flights that are over, as JSON."""


CANARY_STEPS: Final[Mapping[str, str]] = {
    "arrive": "its file was not announced (listeners)",
    "rule": "no rule decided on its event (router)",
    "run": "its flow run was not created (router, Prefect)",
    "pause": "its run did not come to its wait (executor, Prefect)",
    "message": "its message was not taken in (listeners, Redis)",
    "resume": "its run was not resumed (resumer, Prefect)",
    "done": "its run did not end well, or nobody heard of it (executor, router)",
    "archive": "its file was not put away (listeners)",
}
"""The steps of a flight in order, each with the sentence for the case that it does not happen."""


class CanaryFlight(BaseModel):
    """The result of a flight; ``failed`` is the step that did not happen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float
    """When it ended, in seconds since the epoch."""
    failed: str | None
    seconds: dict[str, float]
    """How long each step took."""
    instance: str
    run_id: str | None = None
    event_id: str | None = None

    @property
    def total_seconds(self) -> float:
        """From the file to the end."""
        return sum(self.seconds.values())

    def shown(self) -> dict[str, Any]:
        """For `sluice status --json`."""
        return {**self.model_dump(), "total_seconds": round(self.total_seconds, 3)}


class Remains(BaseModel):
    """The data that one flight has left in Redis and in Prefect."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    signal_id: str
    rule: str
    identity: str | None = None
    position: str | None = None
    run_ids: list[str] = []


class CanaryRecords:
    """Every method raises `TransientError` or `Backpressure`."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def last(self) -> CanaryFlight | None:
        """The last flight that has ended."""
        found = await self._redis.get(STATE)
        return readable_one(STATE, CanaryFlight.model_validate_json, found)

    async def ended(self, flight: CanaryFlight) -> None:
        """Record the result of a flight."""
        await self._redis.set(STATE, flight.model_dump_json())

    async def leave(self, remains: Remains) -> None:
        """Have the remains of a flight deleted."""
        await self._redis.rpush(REMAINS, remains.model_dump_json())

    async def take_remains(self) -> Remains | None:
        """Return the oldest remains, which the caller must delete now."""
        found: Any = await self._redis.lpop(REMAINS)
        return readable_one(REMAINS, Remains.model_validate_json, found)

    async def forget(self, remains: Remains) -> None:
        """Delete the data of a flight in Redis."""
        # `sluice status` reads how the last one went, and starts without these.
        from services.store.events.history import FAILED, HISTORY, MATCHED_BY, UNMATCHED
        from services.store.events.journal import STREAM
        from services.store.events.known_events import KNOWN
        from services.store.runs.created_runs import RUN
        from services.store.signals.signal_keys import INDEX, RECORD
        from services.store.signals.signal_keys import RUN as SIGNALS_OF_RUN

        pipeline = self._redis.pipeline(transaction=True)
        pipeline.unlink(RECORD + remains.signal_id)
        pipeline.zrem(INDEX, remains.signal_id)
        for run_id in remains.run_ids:
            pipeline.unlink(RUN + run_id, SIGNALS_OF_RUN + run_id)
        if remains.identity and remains.position:
            pipeline.unlink(HISTORY + remains.identity, KNOWN + remains.identity)
            for index in (MATCHED_BY + remains.rule, FAILED, UNMATCHED):
                pipeline.zrem(index, remains.position)
            pipeline.xdel(STREAM, remains.position)
        await pipeline.execute()


KEYS: Final = (
    Key(STATE, "string", "how the last flight of the canary went", "for good", CanaryFlight.model_validate_json),
    Key(REMAINS, "list", "what a flight of the canary has left", "until it is deleted", Remains.model_validate_json),
)
