"""Whether a run process may have a flow run, decided from what Prefect says of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

EARLY: Final = timedelta(milliseconds=100)
"""A run may be claimed this much before its time; the rest passes while it is being loaded."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Ask Prefect for the run."""


@dataclass(frozen=True, slots=True)
class Gone:
    """Someone else has the run, or nobody wants it any more."""

    why: str


@dataclass(frozen=True, slots=True)
class ClaimLater:
    """The run's time has not come."""

    until: datetime


Decision: TypeAlias = Claim | Gone | ClaimLater


def is_retrying(*, state_name: str | None, retry_type: str | None) -> bool:
    """Whether a scheduled run waits for its own process rather than for someone to start it."""
    return state_name == "AwaitingRetry" and retry_type == "in_process"


def decide(*, state_type: str | None, retrying: bool, scheduled: datetime | None, now: datetime) -> Decision:
    """What to do with a run in a state of ``state_type`` that is ``scheduled`` for then.

    ``retrying``: the state is the pause between two tries of a flow with retries, whose process lives and goes on by
    itself (see `is_retrying`).
    """
    if state_type != "SCHEDULED":
        return Gone(f"the run is {state_type or 'without a state'} already")
    if retrying:
        return Gone("the run's own process is about to try again")
    if scheduled is not None and scheduled - now > EARLY:
        return ClaimLater(scheduled)
    return Claim()
