"""The rules for every filter and test: checks of arguments, steps spent, and errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final, Protocol

from jinja2 import Undefined

LONGEST_TEXT: Final = 4 * 1024 * 1024
"""Characters of any one text that a template makes."""

_LARGEST_INTEGER: Final = 2**63


class Fault(ValueError):
    """The template cannot be evaluated further; the message tells its author why."""


class Scope(Protocol):
    """The running template, as its filters and tests see it."""

    def spend(self, amount: int) -> None:
        """Spend ``amount`` steps; raises `Fault` when the template's budget is used up."""

    def filter_named(self, name: str) -> Callable[..., Any]:
        """Return the filter that another one applies to each item."""

    def test_named(self, name: str) -> Callable[..., bool]:
        """Return the test that a filter applies to each item."""


def weight(value: Any) -> int:
    """Return the number of steps for visiting every part of ``value`` on its first level."""
    return len(value) if isinstance(value, str | list | dict) else 1


def text(value: Any) -> str:
    """Return ``value`` as it appears inside a text: a string unchanged, anything else as JSON."""
    if isinstance(present(value), str):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def present(value: Any) -> Any:
    """Return ``value``; raises `Fault` naming the path if it stands for a missing value."""
    if isinstance(value, Undefined):
        str(value)
    return value


def take_text(scope: Scope, value: Any, what: str) -> str:
    """``value`` as the text that ``what`` needs."""
    if not isinstance(present(value), str):
        raise Fault(f"`{what}` takes text, not {kind(value)}")
    scope.spend(len(value))
    return str(value)


def take_list(scope: Scope, value: Any, what: str) -> list[Any]:
    """``value`` as the list that ``what`` needs; of a mapping, its keys."""
    if isinstance(present(value), dict):
        value = list(value)
    if not isinstance(value, list):
        raise Fault(f"`{what}` takes a list, not {kind(value)}")
    scope.spend(len(value))
    return value


def take_number(value: Any, what: str) -> int | float:
    """``value`` as the number that ``what`` needs."""
    if not isinstance(present(value), int | float):
        raise Fault(f"`{what}` takes a number, not {kind(value)}")
    return value  # type: ignore[no-any-return]


def take_mapping(scope: Scope, value: Any, what: str) -> dict[str, Any]:
    """``value`` as the mapping that ``what`` needs."""
    if not isinstance(present(value), dict):
        raise Fault(f"`{what}` takes a mapping, not {kind(value)}")
    scope.spend(len(value))
    return value  # type: ignore[no-any-return]


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    words = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return words.get(type(value), "nothing")


def bounded(number: Any) -> Any:
    """Return ``number``; raises `Fault` for one that JSON readers do not keep."""
    if isinstance(number, float) and not math.isfinite(number):
        raise Fault("the number is too large")
    if isinstance(number, int) and not -_LARGEST_INTEGER <= number < 2 * _LARGEST_INTEGER:
        raise Fault("the number does not fit into 64 bits")
    return number


def spend_deep(scope: Scope, value: Any) -> None:
    """Spend steps for every part of ``value`` at every depth."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        scope.spend(1 + weight(one))
        if isinstance(one, dict):
            for key, item in one.items():
                if not isinstance(key, str):
                    raise Fault(f"the key {key!r} of a mapping is not text")
                scope.spend(len(key))
                waiting.append(item)
        elif isinstance(one, list):
            waiting.extend(one)
        else:
            present(one)


def joined(scope: Scope, *values: Any) -> str:
    """Return the values concatenated as one text, as ``~`` does."""
    parts = []
    length = 0
    for value in values:
        spend_deep(scope, value)
        part = text(value)
        length += len(part)
        if length > LONGEST_TEXT:
            raise Fault(f"the text would have more than {LONGEST_TEXT} characters")
        parts.append(part)
    return "".join(parts)
