"""Decides whether a run process must stop, because somebody else ended the run or had it started again."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.executor.pipes import Message

OWN_SECONDS: Final = 2.0
"""How long the process may take to report that it set a state itself: Prefect may publish the state first."""


@dataclass(frozen=True, slots=True)
class _Change:
    state_id: str | None
    occurred: datetime | None
    why: str
    intent: str
    decided_at: float


class Overtaken:
    """The states of one run that Prefect publishes while its process runs."""

    def __init__(self) -> None:
        self._changes: list[_Change] = []

    def hear(self, message: Message) -> None:
        """Record that the run entered a state in which it has no process, or was deleted (no state)."""
        deleted = message["state"] is None
        self._changes.append(
            _Change(
                state_id=message["state"],
                occurred=None if deleted else datetime.fromisoformat(message["occurred"]),
                why=message["why"],
                intent=message["intent"],
                decided_at=time.monotonic() + (0.0 if deleted else OWN_SECONDS),
            )
        )

    def verdict(
        self, steps: Mapping[str, Message], own_states: Collection[str], *, proposing: bool
    ) -> tuple[str, str] | None:
        """Return why the process must end, and with which intent; None while there is no certain reason.

        ``steps``: what the process has reported; ``own_states``: the states that it set; ``proposing``: whether it is
        setting one, which may be the state that was published.
        """
        since = steps.get("claimed", {}).get("since")
        if not self._changes or proposing or since is None:
            return None  # before the claim, Prefect itself decides whether the process gets the run
        for change in list(self._changes):
            if change.state_id in own_states or _is_past(change, since):
                self._changes.remove(change)
            elif time.monotonic() >= change.decided_at:
                return change.why, change.intent
        return None


def _is_past(change: _Change, since: str) -> bool:
    """Whether the state was set before the process claimed the run."""
    return change.occurred is not None and change.occurred <= datetime.fromisoformat(since)
