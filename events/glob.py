"""Globs over event attributes: ``*`` and ``?`` cross dots and slashes, ``[…]`` is a set, ``{a,b}`` a choice.

They are case-sensitive. A brace itself is written ``[{]``, a bracket ``[[]``.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Sequence
from typing import Final

LONGEST: Final = 512
MOST_CHOICES: Final = 200


class Globs:
    """One or more globs, matched as one; `matches` is true where any of them matches the whole text."""

    __slots__ = ("matches", "patterns")

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = tuple(patterns)
        # fnmatch's translation uses atomic groups: no text makes the match take exponential time.
        choices = [choice for pattern in self.patterns for choice in _choices(pattern)]
        self.matches = re.compile("|".join(fnmatch.translate(choice) for choice in choices)).match

    def __str__(self) -> str:
        return " or ".join(repr(pattern) for pattern in self.patterns)


def glob_problem(pattern: str) -> str | None:
    """What is wrong with ``pattern``, and how to mend it; None if it is a good glob."""
    if not pattern:
        return "the glob is empty and would match nothing: write '*' to match everything"
    if len(pattern) > LONGEST:
        return f"the glob has {len(pattern)} characters; at most {LONGEST} are accepted"
    choices = 1
    for mark in _MARK.findall(pattern):
        if mark == "[":
            return f"the set '[' is never closed in {pattern!r}: write ']' behind it, or '[[]' for the bracket itself"
        if mark in "{}":
            return f"the braces in {pattern!r} are nested or not in pairs: write '[{mark}]' for a brace itself"
        if mark[0] == "{":
            choices *= mark.count(",") + 1
    if choices > MOST_CHOICES:
        return f"the braces in {pattern!r} make {choices} globs; at most {MOST_CHOICES} are accepted"
    return None


# A set (its first character, after an optional '!', belongs to it even if it is ']'), a choice, or any one character.
_MARK: Final = re.compile(r"\[!?.[^\]]*\]|\{[^{}\[\]]*\}|.", re.DOTALL)


def _choices(pattern: str) -> list[str]:
    """The globs without braces that a good glob stands for."""
    marks = _MARK.findall(pattern)
    parts = [mark[1:-1].split(",") if mark[0] == "{" else [mark] for mark in marks]
    return ["".join(chosen) for chosen in itertools.product(*parts)]
