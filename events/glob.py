"""Globs over event attributes: case-sensitive, ``*`` and ``?`` cross dots and slashes, ``[…]`` is a set."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Final

LONGEST: Final = 512


class Globs:
    """One or more globs, matched as one; `matches` is true where any of them matches the whole text."""

    __slots__ = ("matches", "patterns")

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = tuple(patterns)
        # fnmatch's translation uses atomic groups: no text makes the match take exponential time.
        self.matches = re.compile("|".join(fnmatch.translate(pattern) for pattern in self.patterns)).match

    def __str__(self) -> str:
        return " or ".join(repr(pattern) for pattern in self.patterns)


def glob_problem(pattern: str) -> str | None:
    """What is wrong with ``pattern``, and how to mend it; None if it is a good glob."""
    if not pattern:
        return "the glob is empty and would match nothing: write '*' to match everything"
    if len(pattern) > LONGEST:
        return f"the glob has {len(pattern)} characters; at most {LONGEST} are accepted"
    position = 0
    while position < len(pattern):
        mark = pattern[position]
        if mark in "{}":
            return (
                f"braces are not part of a glob ({pattern!r}): give a list of globs, or write '[{mark}]' for the brace"
            )
        if mark == "[":
            # The first character inside, after an optional '!', belongs to the set even if it is ']'.
            start = position + 2 if pattern[position + 1 : position + 2] == "!" else position + 1
            end = pattern.find("]", start + 1)
            if end < 0:
                return (
                    f"the set '[' is never closed in {pattern!r}: write ']' behind it, or '[[]' for the bracket itself"
                )
            position = end
        position += 1
    return None
