"""The circuit of a dispatch queue: holds runs that fail alike, tries a probe at intervals, and closes. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

_OK: Final = ""


@dataclass(frozen=True, slots=True)
class CircuitLimits:
    """A circuit opens when, of the last ``events`` outcomes, ``least`` and the ``share`` of all failed alike."""

    events: int = 20
    least: int = 10
    share: float = 0.5
    first_probe_seconds: float = 1.0
    longest_probe_seconds: float = 10.0


class RuleCircuit:
    """The circuit of one queue. ``now`` is any clock in seconds, the same one for every call.

    A closed circuit lets all runs pass. An open one lets only a probe pass when one is due; the probe's result closes
    the circuit or doubles the time to the next probe.
    """

    def __init__(self, limits: CircuitLimits) -> None:
        self._limits = limits
        self._recent: deque[str] = deque(maxlen=limits.events)
        self._probe_seconds = limits.first_probe_seconds
        self.cause: str | None = None
        """The code of the failure that opened the circuit; None while it is closed."""
        self.reason = ""
        self.since = 0.0
        self.next_probe = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the queue's runs are held."""
        return self.cause is not None

    def probe_due(self, now: float) -> bool:
        """Whether a probe is due."""
        return self.is_open and now >= self.next_probe

    def succeeded(self) -> bool:
        """Record a success; return whether it closed the circuit."""
        was_open = self.is_open
        if was_open:
            self.reset()
        self._recent.append(_OK)
        return was_open

    def failed(self, code: str, reason: str, now: float) -> bool:
        """Record a permanent failure; return whether it opened the circuit."""
        if self.is_open:
            self.reason = reason
            self._postpone(now)
            return False
        self._recent.append(code)
        alike = sum(1 for one in self._recent if one == code)
        if alike >= self._limits.least and alike >= self._limits.share * len(self._recent):
            return self.trip(code, reason, now)
        return False

    def trip(self, code: str, reason: str, now: float) -> bool:
        """Open at once, for a reason that holds for every run; return whether the circuit was closed."""
        was_closed = not self.is_open
        if was_closed:
            self.since = now
        self.cause = code
        self.reason = reason
        self._postpone(now)
        return was_closed

    def reset(self) -> None:
        """Close the circuit and forget the outcomes: their cause has changed."""
        self._recent.clear()
        self.cause = None
        self.reason = ""
        self._probe_seconds = self._limits.first_probe_seconds

    def _postpone(self, now: float) -> None:
        self.next_probe = now + self._probe_seconds
        self._probe_seconds = min(self._probe_seconds * 2, self._limits.longest_probe_seconds)
