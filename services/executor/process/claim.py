"""Decides from a flow run's state in Prefect whether a run process may claim it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

EARLY: Final = timedelta(milliseconds=100)
"""A run may be claimed this much before it is due; loading its flow takes longer."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The run may be claimed."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The run must not be claimed: another process has it, or it has ended."""

    why: str


@dataclass(frozen=True, slots=True)
class ClaimLater:
    """The run is not due."""

    until: datetime


Decision: TypeAlias = Claim | Gone | ClaimLater


def is_retrying(*, state_name: str | None, retry_type: str | None) -> bool:
    """Whether a scheduled run is between two attempts in its own process, rather than to be started."""
    return state_name == "AwaitingRetry" and retry_type == "in_process"


def decide(*, state_type: str | None, retrying: bool, scheduled: datetime | None, now: datetime) -> Decision:
    """Decide on a run in a state of ``state_type`` that is ``scheduled`` for a time.

    ``retrying``: the run is between two attempts of a flow with retries, and its process goes on by itself (see
    `is_retrying`).
    """
    if state_type != "SCHEDULED":
        return Gone(f"the run is {state_type or 'without a state'} already")
    if retrying:
        return Gone("the run's own process is about to try again")
    if scheduled is not None and scheduled - now > EARLY:
        return ClaimLater(scheduled)
    return Claim()
