"""When a rule's runs keep failing for one reason: hold what waits, try one now and then, go on by itself. Pure."""

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

    Closed, everything passes. Open, nothing does but a probe when one is due; what the probe finds closes the circuit
    or doubles the time to the next one.
    """

    def __init__(self, limits: CircuitLimits) -> None:
        self._limits = limits
        self._recent: deque[str] = deque(maxlen=limits.events)
        self._probe_seconds = limits.first_probe_seconds
        self.cause: str | None = None
        """The code of what opened it; None while it is closed."""
        self.reason = ""
        self.since = 0.0
        self.next_probe = 0.0

    @property
    def is_open(self) -> bool:
        """Whether what waits is held."""
        return self.cause is not None

    def probe_due(self, now: float) -> bool:
        """Whether it is time to try one."""
        return self.is_open and now >= self.next_probe

    def succeeded(self) -> bool:
        """Note that one worked; answers whether that closed the circuit."""
        was_open = self.is_open
        if was_open:
            self.reset()
        self._recent.append(_OK)
        return was_open

    def failed(self, code: str, reason: str, now: float) -> bool:
        """Note that one failed for good; answers whether that opened the circuit."""
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
        """Open at once, for a reason that holds for every event; answers whether it was closed."""
        was_closed = not self.is_open
        if was_closed:
            self.since = now
        self.cause = code
        self.reason = reason
        self._postpone(now)
        return was_closed

    def reset(self) -> None:
        """Close and forget: what it was about has changed."""
        self._recent.clear()
        self.cause = None
        self.reason = ""
        self._probe_seconds = self._limits.first_probe_seconds

    def _postpone(self, now: float) -> None:
        self.next_probe = now + self._probe_seconds
        self._probe_seconds = min(self._probe_seconds * 2, self._limits.longest_probe_seconds)
