"""What every filter and test lives by: what it may take, what it pays for its work, and how it refuses."""

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
    """The template cannot go on; the message says why, for the person who wrote it."""


class Scope(Protocol):
    """The running template, as its filters and tests see it."""

    def spend(self, amount: int) -> None:
        """Pay for ``amount`` steps; raises `Fault` when the template has used up what it may."""

    def filter_named(self, name: str) -> Callable[..., Any]:
        """The filter that another one applies to each item."""

    def test_named(self, name: str) -> Callable[..., bool]:
        """The test that a filter applies to each item."""


def weight(value: Any) -> int:
    """How many steps it takes to look at every part of ``value`` on its first level."""
    return len(value) if isinstance(value, str | list | dict) else 1


def text(value: Any) -> str:
    """``value`` as it appears inside a text: a string as it is, anything else as JSON."""
    if isinstance(present(value), str):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def present(value: Any) -> Any:
    """``value``, unless it stands for something missing: then the missing path is told."""
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
    """``number`` itself; raises `Fault` where no JSON reader would carry it on."""
    if isinstance(number, float) and not math.isfinite(number):
        raise Fault("the number is too large")
    if isinstance(number, int) and not -_LARGEST_INTEGER <= number < 2 * _LARGEST_INTEGER:
        raise Fault("the number does not fit into 64 bits")
    return number


def spend_deep(scope: Scope, value: Any) -> None:
    """Pay for every part of ``value`` at every depth."""
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
    """The values side by side as one text: what ``~`` does."""
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
