"""Why a file is not loaded."""

from __future__ import annotations


class RefusedFile(ValueError):
    """The file cannot be loaded as it is. The message is a sentence: what is wrong, where, and what to do."""


class AmbiguousFile(RefusedFile):
    """Two readings fit the file. The message shows both and names the line of the contract that settles it."""


class AlreadyLoaded(Exception):
    """This version of the file is in the table."""


class TargetFailed(RuntimeError):
    """The target, not the file, is why nothing was loaded. The message has no password in it."""

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient
        """Whether the same may succeed in a while: a lock, a lost connection, two loads that make the same table."""
