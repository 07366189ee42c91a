"""Why a file is not loaded."""

from __future__ import annotations


class RefusedFile(ValueError):
    """The file cannot be loaded as it is. The message is a sentence: what is wrong, where, and what to do."""


class AmbiguousFile(RefusedFile):
    """Two readings fit the file. The message shows both and names the line of the contract that settles it."""
