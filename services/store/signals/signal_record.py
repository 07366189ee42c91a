"""A signal as it is stored: content, target and outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from pydantic import BaseModel, ConfigDict

from events.signal import Outcome, ResumeSignal

RECEIVED: Final = "received"
"""The status of a signal that no resumer has handled yet."""


class Mark(BaseModel):
    """A signal's effect on one run: the wait that it is for, and its outcome (None: being applied)."""

    model_config = ConfigDict(frozen=True)

    wait: str
    """The id of the wait (see `RunView.wait_id`)."""
    outcome: Outcome | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a signal's life."""

    at: datetime
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A wait for a key that was answered: signals that came while it lasted were meant for it."""

    run_id: str
    entered: datetime
    left: datetime
    by: str

    @classmethod
    def parse(cls, entry: bytes) -> Self:
        """The inverse of `to_json`; raises ValueError or TypeError."""
        run_id, entered, left, by = json.loads(entry)
        if not (isinstance(run_id, str) and isinstance(by, str)):
            raise TypeError("not a wait that was answered")
        return cls(run_id=run_id, entered=from_ms(entered), left=from_ms(left), by=by)

    def to_json(self) -> str:
        """For Redis."""
        return json.dumps([self.run_id, to_ms(self.entered), to_ms(self.left), self.by])


@dataclass(frozen=True, slots=True)
class SignalRecord:
    """A signal with its records. ``place`` counts all signals in the order of their arrival."""

    signal: ResumeSignal
    origin: str
    place: int
    received: datetime
    status: str
    reason: str
    decided: datetime | None
    repeats: int
    marks: Mapping[str, Mark]
    log: tuple[LogLine, ...]

    @property
    def open(self) -> bool:
        """Whether its outcome may still change."""
        return self.status in {RECEIVED, Outcome.BUFFERED}

    @property
    def expires(self) -> datetime:
        """When its time to live ends."""
        return self.received + timedelta(seconds=self.signal.ttl_seconds)


def record_from(fields: Mapping[bytes, bytes]) -> SignalRecord:
    """Return the record of a signal from its hash in Redis; raises `ValueError` or `KeyError` for anything else."""
    lines = [json.loads(line) for line in fields[b"log"].splitlines()]
    if fields[b"status"].decode() not in {RECEIVED, *(outcome.value for outcome in Outcome)}:
        raise ValueError("not the status of a signal")
    return SignalRecord(
        signal=ResumeSignal.model_validate_json(fields[b"signal"]),
        origin=fields[b"origin"].decode(),
        place=int(fields[b"place"]),
        received=from_ms(int(fields[b"received"])),
        status=fields[b"status"].decode(),
        reason=fields[b"reason"].decode(),
        decided=from_ms(int(fields[b"decided"])) if b"decided" in fields else None,
        repeats=int(fields.get(b"repeats", 0)),
        marks={
            name.decode().removeprefix("run:"): Mark.model_validate_json(value)
            for name, value in fields.items()
            if name.startswith(b"run:")
        },
        log=tuple(LogLine(at=from_ms(at), status=str(status), reason=str(reason)) for at, status, reason in lines),
    )


def to_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def from_ms(ms: float) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
