"""The tests behind `is`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from jinja2 import Undefined

from events.filters.bounds import Fault, Scope, take_number, take_text, weight
from events.glob import Globs, glob_problem


@lru_cache(maxsize=256)
def _globs(pattern: str) -> Globs:
    if problem := glob_problem(pattern):
        raise Fault(problem)
    return Globs((pattern,))


def _is(*kinds: type) -> Callable[[Scope, Any], bool]:
    def test(scope: Scope, value: Any) -> bool:
        del scope
        return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))

    return test


def contained(scope: Scope, value: Any, container: Any) -> bool:
    scope.spend(weight(container))
    return value in container


def containing(scope: Scope, value: Any, wanted: Any) -> bool:
    scope.spend(weight(value))
    return wanted in value


def _compared(compare: Callable[[Any, Any], bool]) -> Callable[[Scope, Any, Any], bool]:
    def test(scope: Scope, value: Any, other: Any) -> bool:
        scope.spend(min(weight(value), weight(other)))
        return compare(value, other)

    return test


def _texts_compared(what: str, compare: Callable[[str, str], bool]) -> Callable[[Scope, Any, Any], bool]:
    def test(scope: Scope, value: Any, other: Any) -> bool:
        return compare(take_text(scope, value, what), take_text(scope, other, what))

    return test


TESTS: Final[Mapping[str, Callable[..., bool]]] = {
    "boolean": _is(bool),
    "containing": containing,
    "defined": lambda _, value: not isinstance(value, Undefined),
    "divisibleby": lambda _, value, by: take_number(value, "divisibleby") % take_number(by, "divisibleby") == 0,
    "endingwith": _texts_compared("endingwith", str.endswith),
    "eq": _compared(lambda one, other: one == other),
    "equalto": _compared(lambda one, other: one == other),
    "even": lambda _, value: take_number(value, "even") % 2 == 0,
    "false": lambda _, value: value is False,
    "float": _is(float),
    "ge": _compared(lambda one, other: one >= other),
    "gt": _compared(lambda one, other: one > other),
    "in": contained,
    "integer": _is(int),
    "le": _compared(lambda one, other: one <= other),
    "list": _is(list),
    "lt": _compared(lambda one, other: one < other),
    "mapping": _is(dict),
    "matching": _texts_compared("matching", lambda value, pattern: _globs(pattern).matches(value) is not None),
    "ne": _compared(lambda one, other: one != other),
    "none": lambda _, value: value is None,
    "number": _is(int, float),
    "odd": lambda _, value: take_number(value, "odd") % 2 == 1,
    "sequence": _is(list),
    "startingwith": _texts_compared("startingwith", str.startswith),
    "string": _is(str),
    "true": lambda _, value: value is True,
    "undefined": lambda _, value: isinstance(value, Undefined),
}
