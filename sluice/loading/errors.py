"""The errors of loading: the file is refused, it is loaded already, or the target failed."""

from __future__ import annotations


class RefusedFile(ValueError):
    """The file cannot be loaded as it is. The message is a sentence: what is wrong, where, and what to do."""


class AmbiguousFile(RefusedFile):
    """Two readings fit the file. The message shows both and names the line of the contract that settles it."""


class AlreadyLoaded(Exception):
    """This version of the file is in the table already."""


class TargetFailed(RuntimeError):
    """The target failed, and the file may be right. The message contains no password."""

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient
        """Whether a later attempt may succeed: after a lock, a lost connection, or two loads that make the same table.
        """
