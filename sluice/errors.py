"""The exceptions of the client library."""

from __future__ import annotations

from sluice.display import visible


class _Shown(ValueError):
    """An exception whose message has no hidden characters, whatever text from outside it contains."""

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
    """The path may not be opened: it is in no watched folder, behind a symbolic link, or not a regular file."""


class FileChanged(_Shown):
    """The file is not, or is no longer, the announced version; its present version has an event of its own."""


class OverBudget(_Shown):
    """A file exceeds its budget; the message names the limit and how to raise it."""


class TableRefused(_Shown):
    """The table belongs to another flow, or its name is reserved."""


class UnreadableYaml(ValueError):
    """The file is no YAML, or too large; the message has the file and, where there is one, the line."""
