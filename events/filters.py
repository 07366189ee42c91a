"""The filters and tests of templates: pure functions over JSON values, each bounded in time and size.

Every function takes the scope of the running template first and pays it for its work, so that no template, whatever
the event holds, runs away. None of them reaches a Python attribute, a clock, a file or the environment.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, Protocol

from jinja2 import Undefined

from events.glob import Globs, glob_problem

LONGEST_TEXT: Final = 4 * 1024 * 1024
"""Characters of any one text that a template makes."""

_LARGEST_INTEGER: Final = 2**63
_DIRECTIVES: Final = re.compile(r"(?:[^%]|%[aAbBdjmyYHIMSpzZfuVG%])*")


class Fault(ValueError):
    """The template cannot go on; the message says why, for the person who wrote it."""


class Scope(Protocol):
    """What a running template may use up."""

    def spend(self, amount: int) -> None:
        """Pay for ``amount`` steps; raises `Fault` when the template has used up what it may."""


def weight(value: Any) -> int:
    """How many steps it takes to look at every part of ``value`` on its first level."""
    return len(value) if isinstance(value, str | list | dict) else 1


def text(value: Any) -> str:
    """``value`` as it appears inside a text: a string as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Undefined):
        return str(value)  # raises, with the path that is missing
    return json.dumps(value, ensure_ascii=False)


def _texts(scope: Scope, value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Fault(f"`{what}` takes text, not {kind(value)}")
    scope.spend(len(value))
    return value


def _items(scope: Scope, value: Any, what: str) -> list[Any]:
    if isinstance(value, Undefined):
        str(value)
    if isinstance(value, dict):
        value = list(value)
    if not isinstance(value, list):
        raise Fault(f"`{what}` takes a list, not {kind(value)}")
    scope.spend(len(value))
    return value


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    words = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return words.get(type(value), "nothing")


def dig(value: Any, path: str) -> Any:
    """The value at the dotted ``path`` inside mappings and lists; raises `LookupError` where there is none."""
    for part in path.split("."):
        if isinstance(value, dict):
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and len(part) < 10:  # noqa: PLR2004 - no list is longer
            value = value[int(part)]
        else:
            raise LookupError(part)
    return value


def _attribute(value: Any, path: str) -> Any:
    try:
        return dig(value, path)
    except LookupError:
        raise Fault(f"an item has no {path!r}") from None


# ---- text ------------------------------------------------------------------------------------------------------


def upper(scope: Scope, value: Any) -> str:
    return _texts(scope, value, "upper").upper()


def lower(scope: Scope, value: Any) -> str:
    return _texts(scope, value, "lower").lower()


def capitalize(scope: Scope, value: Any) -> str:
    return _texts(scope, value, "capitalize").capitalize()


def title(scope: Scope, value: Any) -> str:
    return _texts(scope, value, "title").title()


def trim(scope: Scope, value: Any, chars: str | None = None) -> str:
    return _texts(scope, value, "trim").strip(chars)


def replace(scope: Scope, value: Any, old: str, new: str) -> str:
    subject = _texts(scope, value, "replace")
    if not old:
        raise Fault("`replace` needs a text to look for")
    grown = len(subject) + subject.count(old) * (len(new) - len(old))
    if grown > LONGEST_TEXT:
        raise Fault(f"`replace` would make a text of {grown} characters")
    scope.spend(grown)
    return subject.replace(old, new)


def truncate(scope: Scope, value: Any, length: int = 255, end: str = "…") -> str:
    subject = _texts(scope, value, "truncate")
    return subject if len(subject) <= length else subject[: max(length - len(end), 0)] + end


def split(scope: Scope, value: Any, separator: str | None = None) -> list[str]:
    subject = _texts(scope, value, "split")
    parts = subject.split(separator)
    scope.spend(len(parts))
    return parts


def string(scope: Scope, value: Any) -> str:
    return joined(scope, value)


def slug(scope: Scope, value: Any) -> str:
    """Lower-case letters, digits and single dashes: fit for keys and names."""
    return re.sub(r"[\W_]+", "-", _texts(scope, value, "slug").lower()).strip("-")


def basename(scope: Scope, value: Any) -> str:
    return _texts(scope, value, "basename").rstrip("/").rpartition("/")[2]


def dirname(scope: Scope, value: Any) -> str:
    return _texts(scope, value, "dirname").rstrip("/").rpartition("/")[0]


def stem(scope: Scope, value: Any) -> str:
    """The file name without folder and without its last extension."""
    name = basename(scope, value)
    return name[: -len(found)] if (found := suffix(scope, name)) else name


def suffix(scope: Scope, value: Any) -> str:
    """The last extension with its dot, or an empty text."""
    name = basename(scope, value)
    before, dot, extension = name.rpartition(".")
    return dot + extension if before else ""


def date(scope: Scope, value: Any, form: str = "%Y-%m-%d") -> str:
    """An ISO 8601 time (such as ``event.time``) in strftime's directives."""
    subject = _texts(scope, value, "date")
    if len(form) > 200 or not _DIRECTIVES.fullmatch(form):  # noqa: PLR2004 - no date is longer
        raise Fault(f"`date` does not know the form {form[:80]!r}: use directives such as %Y-%m-%d %H:%M")
    try:
        return datetime.fromisoformat(subject).strftime(form)
    except ValueError:
        raise Fault(f"`date` takes an ISO 8601 time, not {subject[:40]!r}") from None


def tojson(scope: Scope, value: Any) -> str:
    spend_deep(scope, value)
    return json.dumps(value, ensure_ascii=False)


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


# ---- numbers ---------------------------------------------------------------------------------------------------


def _number(value: Any, what: str) -> int | float:
    if isinstance(value, Undefined):
        str(value)
    if not isinstance(value, int | float):
        raise Fault(f"`{what}` takes a number, not {kind(value)}")
    return value


def absolute(scope: Scope, value: Any) -> int | float:
    del scope
    return abs(_number(value, "abs"))


def to_int(scope: Scope, value: Any, default: Any = None) -> Any:
    """A number or a text as a whole number; what is none becomes ``default``, or is refused without one."""
    try:
        if isinstance(value, str):
            scope.spend(len(value))
            number = int(value) if len(value) < 32 else int(float(value[:400]))  # noqa: PLR2004 - 64 bits have 20 digits
        else:
            number = int(_number(value, "int"))
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
        return float(_number(value, "float"))
    except (ValueError, OverflowError):
        if default is None:
            raise Fault(f"`float` cannot read {kind(value)}{_quoted(value)} as a number") from None
        return default


def rounded(scope: Scope, value: Any, precision: int = 0) -> int | float:
    """``value`` to ``precision`` decimals; a whole number where that is 0."""
    del scope
    number = _number(value, "round")
    return round(number, min(max(precision, -20), 20)) if precision else round(number)


def bounded(number: Any) -> Any:
    """``number`` itself; raises `Fault` where no JSON reader would carry it on."""
    if isinstance(number, float) and not math.isfinite(number):
        raise Fault("the number is too large")
    if isinstance(number, int) and not -_LARGEST_INTEGER <= number < 2 * _LARGEST_INTEGER:
        raise Fault("the number does not fit into 64 bits")
    return number


def _quoted(value: Any) -> str:
    return f" {value[:40]!r}" if isinstance(value, str) else ""


# ---- lists and mappings ----------------------------------------------------------------------------------------


def length(scope: Scope, value: Any) -> int:
    del scope
    if isinstance(value, Undefined):
        str(value)
    if not isinstance(value, str | list | dict):
        raise Fault(f"`length` takes text, a list or a mapping, not {kind(value)}")
    return len(value)


def first(scope: Scope, value: Any) -> Any:
    return _end(scope, value, "first", 0)


def last(scope: Scope, value: Any) -> Any:
    return _end(scope, value, "last", -1)


def _end(scope: Scope, value: Any, what: str, index: int) -> Any:
    items = value if isinstance(value, str) else _items(scope, value, what)
    if not items:
        raise Fault(f"`{what}` of nothing: it is empty")
    return items[index]


def join(scope: Scope, value: Any, separator: str = "", attribute: str | None = None) -> str:
    items = _items(scope, value, "join")
    if attribute is not None:
        items = [_attribute(item, attribute) for item in items]
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
    return list(_items(scope, value, "list"))


def keys(scope: Scope, value: Any) -> list[str]:
    return list(_mapping(scope, value, "keys"))


def values(scope: Scope, value: Any) -> list[Any]:
    return list(_mapping(scope, value, "values").values())


def items(scope: Scope, value: Any) -> list[list[Any]]:
    return [[key, item] for key, item in _mapping(scope, value, "items").items()]


def _mapping(scope: Scope, value: Any, what: str) -> dict[str, Any]:
    if isinstance(value, Undefined):
        str(value)
    if not isinstance(value, dict):
        raise Fault(f"`{what}` takes a mapping, not {kind(value)}")
    scope.spend(len(value))
    return value


def mapped(scope: Scope, value: Any, name: str | None = None, *args: Any, **options: Any) -> list[Any]:
    """Each item's ``attribute`` (dotted; ``default`` where it is missing), or each item through the filter ``name``."""
    found = _items(scope, value, "map")
    if name is None:
        path = options.get("attribute")
        if not isinstance(path, str):
            raise Fault("`map` takes the name of a filter, or `attribute=`")
        if "default" not in options:
            return [_attribute(item, path) for item in found]
        return [_attribute_or(item, path, options["default"]) for item in found]
    return [FILTERS[name](scope, item, *args, **options) for item in found]


def _attribute_or(value: Any, path: str, default: Any) -> Any:
    try:
        return dig(value, path)
    except LookupError:
        return default


def select(scope: Scope, value: Any, test: str | None = None, *args: Any) -> list[Any]:
    return [item for item in _items(scope, value, "select") if _passes(scope, item, test, args)]


def reject(scope: Scope, value: Any, test: str | None = None, *args: Any) -> list[Any]:
    return [item for item in _items(scope, value, "reject") if not _passes(scope, item, test, args)]


def selectattr(scope: Scope, value: Any, attribute: str, test: str | None = None, *args: Any) -> list[Any]:
    found = _items(scope, value, "selectattr")
    return [item for item in found if _passes(scope, _attribute_or(item, attribute, None), test, args)]


def rejectattr(scope: Scope, value: Any, attribute: str, test: str | None = None, *args: Any) -> list[Any]:
    found = _items(scope, value, "rejectattr")
    return [item for item in found if not _passes(scope, _attribute_or(item, attribute, None), test, args)]


def _passes(scope: Scope, value: Any, test: str | None, args: Iterable[Any]) -> bool:
    return bool(value) if test is None else bool(TESTS[test](scope, value, *args))


def sort(scope: Scope, value: Any, reverse: bool = False, attribute: str | None = None) -> list[Any]:
    found = _items(scope, value, "sort")
    scope.spend(len(found) * max(len(found).bit_length(), 1))
    if attribute is None:
        return sorted(found, reverse=reverse)
    return sorted(found, key=lambda item: _attribute(item, attribute), reverse=reverse)


def backwards(scope: Scope, value: Any) -> Any:
    if isinstance(value, str):
        scope.spend(len(value))
        return value[::-1]
    return _items(scope, value, "reverse")[::-1]


def unique(scope: Scope, value: Any, attribute: str | None = None) -> list[Any]:
    """The items without repeats (by ``attribute`` where given), the first of each kept."""
    found: dict[str, Any] = {}
    for item in _items(scope, value, "unique"):
        key = item if attribute is None else _attribute(item, attribute)
        found.setdefault(tojson(scope, key), item)
    return list(found.values())


def smallest(scope: Scope, value: Any, attribute: str | None = None) -> Any:
    return _extreme(scope, value, "min", attribute, min)


def largest(scope: Scope, value: Any, attribute: str | None = None) -> Any:
    return _extreme(scope, value, "max", attribute, max)


def _extreme(scope: Scope, value: Any, what: str, attribute: str | None, choose: Callable[..., Any]) -> Any:
    found = _items(scope, value, what)
    if not found:
        raise Fault(f"`{what}` of nothing: it is empty")
    return choose(found) if attribute is None else choose(found, key=lambda item: _attribute(item, attribute))


def total(scope: Scope, value: Any, attribute: str | None = None, start: float = 0) -> int | float:
    found = _items(scope, value, "sum")
    amount: int | float = start
    for item in found:
        amount = bounded(amount + _number(item if attribute is None else _attribute(item, attribute), "sum"))
    return amount


def default(scope: Scope, value: Any, instead: Any = "", boolean: bool = False) -> Any:
    """``instead`` where the value is missing or null (with ``boolean``: where it is false or empty)."""
    del scope
    if isinstance(value, Undefined) or value is None or (boolean and not value):
        return instead
    return value


def part(scope: Scope, value: Any, start: int | None, stop: int | None, step: int | None) -> Any:
    """What ``value[start:stop:step]`` stands for."""
    if isinstance(value, Undefined):
        str(value)
    if not isinstance(value, str | list):
        raise Fault(f"a slice takes text or a list, not {kind(value)}")
    found = value[start:stop:step]
    scope.spend(len(found))
    return found


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
        elif isinstance(one, Undefined):
            str(one)


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": absolute,
    "basename": basename,
    "capitalize": capitalize,
    "count": length,
    "d": default,
    "date": date,
    "default": default,
    "dirname": dirname,
    "first": first,
    "float": to_float,
    "int": to_int,
    "items": items,
    "join": join,
    "keys": keys,
    "last": last,
    "length": length,
    "list": to_list,
    "lower": lower,
    "map": mapped,
    "max": largest,
    "min": smallest,
    "reject": reject,
    "rejectattr": rejectattr,
    "replace": replace,
    "reverse": backwards,
    "round": rounded,
    "select": select,
    "selectattr": selectattr,
    "slug": slug,
    "sort": sort,
    "split": split,
    "stem": stem,
    "string": string,
    "suffix": suffix,
    "sum": total,
    "title": title,
    "tojson": tojson,
    "trim": trim,
    "truncate": truncate,
    "unique": unique,
    "upper": upper,
    "values": values,
}


# ---- tests -----------------------------------------------------------------------------------------------------


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
        return compare(_texts(scope, value, what), _texts(scope, other, what))

    return test


TESTS: Final[Mapping[str, Callable[..., bool]]] = {
    "boolean": _is(bool),
    "containing": containing,
    "defined": lambda _, value: not isinstance(value, Undefined),
    "divisibleby": lambda _, value, by: _number(value, "divisibleby") % _number(by, "divisibleby") == 0,
    "endingwith": _texts_compared("endingwith", str.endswith),
    "eq": _compared(lambda one, other: one == other),
    "equalto": _compared(lambda one, other: one == other),
    "even": lambda _, value: _number(value, "even") % 2 == 0,
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
    "odd": lambda _, value: _number(value, "odd") % 2 == 1,
    "sequence": _is(list),
    "startingwith": _texts_compared("startingwith", str.startswith),
    "string": _is(str),
    "true": lambda _, value: value is True,
    "undefined": lambda _, value: isinstance(value, Undefined),
}
