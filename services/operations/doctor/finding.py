"""The result of one check of `sluice doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, and may not for long, or not for all."""
    FAIL = "fail"
    """Something does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence and the remedy; ``fix`` is empty if nothing is wrong."""

    check: str
    grade: Grade
    found: str
    fix: str = ""


def ok(check: str, found: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check, Grade.OK, found)


def warn(check: str, found: str, fix: str) -> Finding:
    """It works, but."""
    return Finding(check, Grade.WARN, found, fix)


def fail(check: str, found: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(check, Grade.FAIL, found, fix)
