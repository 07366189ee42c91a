"""Filters that take numbers, or make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from events.filters.bounds import Fault, Scope, bounded, kind, take_number


def absolute(scope: Scope, value: Any) -> int | float:
    del scope
    return abs(take_number(value, "abs"))


def to_int(scope: Scope, value: Any, default: Any = None) -> Any:
    """A number or a text as a whole number; what is none becomes ``default``, or is refused without one."""
    try:
        if isinstance(value, str):
            scope.spend(len(value))
            number = int(value) if len(value) < 32 else int(float(value[:400]))  # noqa: PLR2004 - 64 bits have 20 digits
        else:
            number = int(take_number(value, "int"))
        return bounded(number)
    except (ValueError, OverflowError):
        if default is None:
            raise Fault(f"`int` cannot read {kind(value)}{_quoted(value)} as a whole number") from None
        return default


def to_float(scope: Scope, value: Any, default: Any = None) -> Any:
    try:
        if isinstance(value, str):
            scope.spend(len(value))
            return bounded(float(value[:400]))
        return float(take_number(value, "float"))
    except (ValueError, OverflowError):
        if default is None:
            raise Fault(f"`float` cannot read {kind(value)}{_quoted(value)} as a number") from None
        return default


def rounded(scope: Scope, value: Any, precision: int = 0) -> int | float:
    """``value`` to ``precision`` decimals; a whole number where that is 0."""
    del scope
    number = take_number(value, "round")
    return round(number, min(max(precision, -20), 20)) if precision else round(number)


def _quoted(value: Any) -> str:
    return f" {value[:40]!r}" if isinstance(value, str) else ""


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {"abs": absolute, "float": to_float, "int": to_int, "round": rounded}
