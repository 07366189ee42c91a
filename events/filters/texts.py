"""Filters that take text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from events.filters.bounds import LONGEST_TEXT, Fault, Scope, joined, spend_deep, take_text

_ENCODING: Final = 20
"""Additional steps for each encoded value, so that a template cannot encode a million of them."""

_encode: Final = json.JSONEncoder(ensure_ascii=False).encode

_DIRECTIVES: Final = re.compile(r"(?:[^%]|%[aAbBdjmyYHIMSpzZfuVG%])*")


def _cased(name: str, method: Callable[[str], str]) -> Callable[[Scope, Any], str]:
    return lambda scope, value: method(take_text(scope, value, name))


def trim(scope: Scope, value: Any, chars: str | None = None) -> str:
    return take_text(scope, value, "trim").strip(chars)


def replace(scope: Scope, value: Any, old: str, new: str) -> str:
    subject = take_text(scope, value, "replace")
    if not old:
        raise Fault("`replace` needs a text to look for")
    grown = len(subject) + subject.count(old) * (len(new) - len(old))
    if grown > LONGEST_TEXT:
        raise Fault(f"`replace` would make a text of {grown} characters")
    scope.spend(grown)
    return subject.replace(old, new)


def truncate(scope: Scope, value: Any, length: int = 255, end: str = "…") -> str:
    subject = take_text(scope, value, "truncate")
    return subject if len(subject) <= length else subject[: max(length - len(end), 0)] + end


def split(scope: Scope, value: Any, separator: str | None = None) -> list[str]:
    subject = take_text(scope, value, "split")
    parts = subject.split(separator)
    scope.spend(len(parts))
    return parts


def string(scope: Scope, value: Any) -> str:
    return joined(scope, value)


def slug(scope: Scope, value: Any) -> str:
    """Lower-case letters, digits and single dashes: fit for keys and names."""
    return re.sub(r"[\W_]+", "-", take_text(scope, value, "slug").lower()).strip("-")


def basename(scope: Scope, value: Any) -> str:
    return take_text(scope, value, "basename").rstrip("/").rpartition("/")[2]


def dirname(scope: Scope, value: Any) -> str:
    return take_text(scope, value, "dirname").rstrip("/").rpartition("/")[0]


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
    subject = take_text(scope, value, "date")
    if len(form) > 200 or not _DIRECTIVES.fullmatch(form):  # noqa: PLR2004 - no date is longer
        raise Fault(f"`date` does not know the form {form[:80]!r}: use directives such as %Y-%m-%d %H:%M")
    try:
        return datetime.fromisoformat(subject).strftime(form)
    except ValueError:
        raise Fault(f"`date` takes an ISO 8601 time, not {subject[:40]!r}") from None


def tojson(scope: Scope, value: Any) -> str:
    scope.spend(_ENCODING)
    spend_deep(scope, value)
    return _encode(value)


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "basename": basename,
    "capitalize": _cased("capitalize", str.capitalize),
    "date": date,
    "dirname": dirname,
    "lower": _cased("lower", str.lower),
    "replace": replace,
    "slug": slug,
    "split": split,
    "stem": stem,
    "string": string,
    "suffix": suffix,
    "title": _cased("title", str.title),
    "tojson": tojson,
    "trim": trim,
    "truncate": truncate,
    "upper": _cased("upper", str.upper),
}
