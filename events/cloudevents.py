"""Checks of attributes by the CloudEvents 1.0 specification, in JSON and in HTTP headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from events.errors import RejectedEvent

STANDARD: Final = frozenset({"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"})
_NO_EXTENSIONS: Final = STANDARD | {"data"}
_TEXTS: Final = ("subject", "datacontenttype", "dataschema")
"""Optional attributes that are non-empty texts."""

_EXTENSION_NAME: Final = re.compile(r"[a-z0-9]{1,64}")
_DISALLOWED: Final = re.compile("[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
"""Control characters and the noncharacters of Unicode's first plane."""

_RFC_3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_SECONDS: Final = slice(17, 19)
_LEAP_SECOND: Final = "60"

_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


def checked(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the attributes (and ``data``) of an event without those that are ``null``, which count as unset.

    Raises `RejectedEvent` (``not-a-cloudevent``) for values that CloudEvents does not allow, except wrong types, which
    are checked elsewhere. A leap second becomes the second before it.
    """
    there = value
    if None in there.values():
        there = {name: part for name, part in there.items() if part is not None}
    if "data_base64" in there:
        raise _refusal("binary data (`data_base64`) is not accepted: send JSON in `data`")
    if "specversion" not in there:
        raise _refusal("`specversion` is missing: CloudEvents say which version they follow, here '1.0'")
    for name in there.keys() - _NO_EXTENSIONS:
        _check_extension(name, there[name])
    # One search over all is cheaper than one for each attribute; what it finds may be in `data`.
    if _DISALLOWED.search("".join([part for part in there.values() if type(part) is str])):
        _refuse_characters(there)
    for name in _TEXTS:
        part = there.get(name)
        if part is not None and (not isinstance(part, str) or not part):
            raise _refusal(f"`{name}` is {_shown(part)}; where it is given, it is a text that is not empty")
    time = there.get("time")
    if time is not None and (taken := _time(time)) != time:
        there = {**there, "time": taken}
    return there


def header_text(name: str, raw: bytes) -> str:
    """Return the value of the attribute header ``name``: unquoted, then percent-decoded once, by the HTTP binding.

    Raises `RejectedEvent` (``not-a-cloudevent``) for bytes that are not UTF-8, encoded or not, and for a value that
    begins with a double quote and is not quoted as a whole.
    """
    text = raw.decode("latin-1").strip(" \t")
    if text.startswith('"'):
        quoted = _QUOTED.fullmatch(text)
        if quoted is None:
            raise _refusal(f"the header {name} begins with a double quote and is not one quoted text: send it as %22")
        text = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refusal(f"the header {name} is not UTF-8 (percent-encoded where it is not ASCII): {error}") from error


def _refuse_characters(attributes: Mapping[str, Any]) -> None:
    for name, part in attributes.items():
        if name != "data" and isinstance(part, str) and (found := _DISALLOWED.search(part)):
            raise _refusal(f"`{name}` holds the character U+{ord(found[0]):04X}, which no attribute may hold")


def _check_extension(name: str, part: Any) -> None:
    if not _EXTENSION_NAME.fullmatch(name):
        raise _refusal(
            f"the attribute name {name[:80]!r} is not allowed: CloudEvents names are lower-case letters and digits"
        )
    if not isinstance(part, bool | int | str):
        raise _refusal(f"the extension `{name}` is {_shown(part)}; extensions are texts, whole numbers or booleans")


def _time(part: Any) -> str:
    if not isinstance(part, str) or not _RFC_3339.fullmatch(part):
        raise _refusal(f"`time` is {_shown(part)}, not a time with its zone as RFC 3339 has it: 2026-01-31T12:00:00Z")
    return f"{part[: _SECONDS.start]}59{part[_SECONDS.stop :]}" if part[_SECONDS] == _LEAP_SECOND else part


def _shown(part: Any) -> str:
    return f"{part!r:.80}" if isinstance(part, str | int | float) else f"of the type {type(part).__name__}"


def _refusal(reason: str) -> RejectedEvent:
    return RejectedEvent("not-a-cloudevent", reason)
