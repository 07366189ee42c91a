"""What a wait can end with besides an answer."""

from __future__ import annotations

from sluice.display import visible


class _Shown(ValueError):
    """Its message holds no hidden characters, whatever text from outside it was made of."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


class SignalTimeout(TimeoutError):
    """Nobody answered in time, and the wait has no default."""


class SignalRejected(Exception):
    """The answer was a refusal. Left uncaught it fails the run, with who and why in the state's message."""

    def __init__(self, *, by: str | None, reason: str | None) -> None:
        said = f": {reason}" if reason else ""
        super().__init__(visible(f"rejected by {by or 'an unnamed sender'}{said}"))
        self.by = by
        self.reason = reason


class FileRefused(_Shown):
    """The path may not be opened: it lies in no watched folder, behind a symbolic link, or is no regular file."""


class FileChanged(_Shown):
    """The file is not, or is no longer, the version that was announced; what it is now has an event of its own."""


class OverBudget(_Shown):
    """A file costs more than the flow is willing to spend on it; the message names the limit and how to raise it."""


class TableRefused(_Shown):
    """The table belongs to another flow, or its name is not to be used."""


class UnreadableYaml(ValueError):
    """The file is no YAML, or too large; the message has the file and, where there is one, the line."""
