"""Filters that take lists and mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from jinja2 import Undefined

from events.filters.bounds import (
    LONGEST_TEXT,
    Fault,
    Scope,
    bounded,
    joined,
    kind,
    present,
    take_list,
    take_mapping,
    take_number,
    weight,
)
from events.filters.texts import tojson

_NOTHING: Final = object()


def _picker(attribute: str | None) -> Callable[[Any], Any]:
    """Return a function that reads the dotted ``attribute`` of an item (None: the item itself), or raises `Fault`."""
    if attribute is None:
        return lambda item: item
    path = str(attribute).split(".")

    def pick(item: Any) -> Any:
        found = _dug(item, path)
        if found is _NOTHING:
            raise Fault(f"an item has no {'.'.join(path)!r}")
        return found

    return pick


def _dug(value: Any, path: list[str]) -> Any:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step, _NOTHING)
        elif isinstance(value, list) and step.isdecimal() and int(step[:9]) < len(value):
            value = value[int(step[:9])]
        else:
            return _NOTHING
    return value


def length(scope: Scope, value: Any) -> int:
    del scope
    if not isinstance(present(value), str | list | dict):
        raise Fault(f"`length` takes text, a list or a mapping, not {kind(value)}")
    return len(value)


def first(scope: Scope, value: Any) -> Any:
    return _end(scope, value, "first", 0)


def last(scope: Scope, value: Any) -> Any:
    return _end(scope, value, "last", -1)


def _end(scope: Scope, value: Any, what: str, index: int) -> Any:
    items = value if isinstance(value, str) else take_list(scope, value, what)
    if not items:
        raise Fault(f"`{what}` of nothing: it is empty")
    return items[index]


def join(scope: Scope, value: Any, separator: str = "", attribute: str | None = None) -> str:
    pick = _picker(attribute)
    items = [pick(item) for item in take_list(scope, value, "join")]
    if len(separator) * len(items) > LONGEST_TEXT:
        raise Fault("`join` would make too long a text")
    parts: list[Any] = []
    for item in items:
        parts += (separator, item) if parts else (item,)
    return joined(scope, *parts)


def to_list(scope: Scope, value: Any) -> list[Any]:
    if isinstance(value, str):
        scope.spend(len(value))
        return list(value)
    return list(take_list(scope, value, "list"))


def mapped(scope: Scope, value: Any, name: str | None = None, *args: Any, **options: Any) -> list[Any]:
    """Each item's ``attribute`` (dotted; ``default`` where it is missing), or each item through the filter ``name``."""
    found = take_list(scope, value, "map")
    if name is not None:
        apply = scope.filter_named(name)
        return [apply(scope, item, *args, **options) for item in found]
    path = options.pop("attribute", None)
    if not isinstance(path, str) or options.keys() - {"default"}:
        raise Fault("`map` takes the name of a filter, or `attribute=` with or without `default=`")
    if "default" not in options:
        pick = _picker(path)
        return [pick(item) for item in found]
    instead = options["default"]
    steps = path.split(".")
    values = [_dug(item, steps) for item in found]
    scope.spend(weight(instead) * values.count(_NOTHING))  # a repeated value counts as if it were copied
    return [instead if value is _NOTHING else value for value in values]


def select(scope: Scope, value: Any, test: str | None = None, *args: Any) -> list[Any]:
    return _chosen(scope, take_list(scope, value, "select"), None, test, args, keep=True)


def reject(scope: Scope, value: Any, test: str | None = None, *args: Any) -> list[Any]:
    return _chosen(scope, take_list(scope, value, "reject"), None, test, args, keep=False)


def selectattr(scope: Scope, value: Any, attribute: str, test: str | None = None, *args: Any) -> list[Any]:
    return _chosen(scope, take_list(scope, value, "selectattr"), attribute, test, args, keep=True)


def rejectattr(scope: Scope, value: Any, attribute: str, test: str | None = None, *args: Any) -> list[Any]:
    return _chosen(scope, take_list(scope, value, "rejectattr"), attribute, test, args, keep=False)


def _chosen(
    scope: Scope, items: list[Any], attribute: str | None, test: str | None, args: Iterable[Any], *, keep: bool
) -> list[Any]:
    path = str(attribute).split(".") if attribute is not None else []
    passes: Callable[..., bool] = scope.test_named(test) if test is not None else _truth
    chosen = []
    for item in items:
        found = _dug(item, path)
        if bool(passes(scope, None if found is _NOTHING else found, *args)) is keep:
            chosen.append(item)
    return chosen


def _truth(_: Scope, value: Any) -> bool:
    return bool(value)


def sort(scope: Scope, value: Any, reverse: bool = False, attribute: str | None = None) -> list[Any]:
    found = take_list(scope, value, "sort")
    scope.spend(len(found) * max(len(found).bit_length(), 1))
    return sorted(found, key=_picker(attribute), reverse=reverse)


def backwards(scope: Scope, value: Any) -> Any:
    if isinstance(value, str):
        scope.spend(len(value))
        return value[::-1]
    return take_list(scope, value, "reverse")[::-1]


def unique(scope: Scope, value: Any, attribute: str | None = None) -> list[Any]:
    """The items without repeats (by ``attribute`` where given), the first of each kept."""
    found: dict[str, Any] = {}
    pick = _picker(attribute)
    for item in take_list(scope, value, "unique"):
        found.setdefault(tojson(scope, pick(item)), item)
    return list(found.values())


def smallest(scope: Scope, value: Any, attribute: str | None = None) -> Any:
    return _extreme(scope, value, "min", attribute, min)


def largest(scope: Scope, value: Any, attribute: str | None = None) -> Any:
    return _extreme(scope, value, "max", attribute, max)


def _extreme(scope: Scope, value: Any, what: str, attribute: str | None, choose: Callable[..., Any]) -> Any:
    found = take_list(scope, value, what)
    if not found:
        raise Fault(f"`{what}` of nothing: it is empty")
    return choose(found, key=_picker(attribute))


def total(scope: Scope, value: Any, attribute: str | None = None, start: float = 0) -> int | float:
    found = take_list(scope, value, "sum")
    pick = _picker(attribute)
    amount: int | float = take_number(start, "sum")
    for item in found:
        amount = bounded(amount + take_number(pick(item), "sum"))
    return amount


def default(scope: Scope, value: Any, instead: Any = "", boolean: bool = False) -> Any:
    """``instead`` where the value is missing or null (with ``boolean``: where it is false or empty)."""
    del scope
    if isinstance(value, Undefined) or value is None or (boolean and not value):
        return instead
    return value


def part(scope: Scope, value: Any, start: int | None, stop: int | None, step: int | None) -> Any:
    """Return ``value[start:stop:step]``."""
    if not isinstance(present(value), str | list):
        raise Fault(f"a slice takes text or a list, not {kind(value)}")
    found = value[start:stop:step]
    scope.spend(len(found))
    return found


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "count": length,
    "d": default,
    "default": default,
    "first": first,
    "items": lambda scope, value: [list(pair) for pair in take_mapping(scope, value, "items").items()],
    "join": join,
    "keys": lambda scope, value: list(take_mapping(scope, value, "keys")),
    "last": last,
    "length": length,
    "list": to_list,
    "map": mapped,
    "max": largest,
    "min": smallest,
    "reject": reject,
    "rejectattr": rejectattr,
    "reverse": backwards,
    "select": select,
    "selectattr": selectattr,
    "sort": sort,
    "sum": total,
    "unique": unique,
    "values": lambda scope, value: list(take_mapping(scope, value, "values").values()),
}
