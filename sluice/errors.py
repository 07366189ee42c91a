"""What a wait can end with besides an answer."""

from __future__ import annotations


class SignalTimeout(TimeoutError):
    """Nobody answered in time, and the wait has no default."""


class SignalRejected(Exception):
    """The answer was a refusal. Left uncaught it fails the run, with who and why in the state's message."""

    def __init__(self, *, by: str | None, reason: str | None) -> None:
        said = f": {reason}" if reason else ""
        super().__init__(f"rejected by {by or 'an unnamed sender'}{said}")
        self.by = by
        self.reason = reason
