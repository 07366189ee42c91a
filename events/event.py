"""The event: a fact from outside as a frozen CloudEvents 1.0 value, and the only door for untrusted bytes."""

from __future__ import annotations

import json
import math
import re
import unicodedata
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SkipValidation,
    StringConstraints,
    ValidationError,
)
from pydantic_core import from_json, to_json

from events.cloudevents import STANDARD, checked
from events.errors import RejectedEvent
from events.identity import identity_of

FILE_ARRIVED: Final = "sluice.file.arrived"
RESUME: Final = "sluice.resume"

OWN_TYPES: Final = "sluice."
"""Types that begin so are made by Sluice alone; so are sources that begin with `OWN_SOURCES`, the watched folders."""
OWN_SOURCES: Final = "files/"

# Prefect's server replaces a mapping that carries this key by a variable's value or a rendered template.
HYDRATION_KEY: Final = "__prefect_kind"
_HYDRATION_BYTES: Final = HYDRATION_KEY.encode()
_NUL_ESCAPE: Final = b"\\u0000"
# Text decoded from UTF-8 holds a lone surrogate, or a key that its bytes do not show, only through such an escape.
_SURROGATE_ESCAPE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_LETTER_ESCAPE: Final = re.compile(rb"\\u00[567]")

# What only the careful decoder can judge: a colon that does not show, and numbers that 64 bits or a float may not hold.
_COLON_ESCAPE: Final = b"\\u003"
_SHAPE: Final = bytes(48 if byte in b"0123456789" else 101 if byte in b"eE" else 32 for byte in range(256))
_LONG_NUMBER: Final = b"0" * 19
_LARGE_EXPONENT: Final = b"0e000"

_KEPT: Final = frozenset({"specversion", "id", "source", "type", "subject", "time", "data"})

_UNSEEN: Final = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp", "Mn"})
"""Categories of characters that show as nothing, or only on top of others."""

_STRUCTURE: Final = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)

Attribute = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one message from outside may weigh: ``max_bytes`` as received, ``max_depth`` nested containers."""

    max_bytes: int = 1024 * 1024
    max_depth: int = 64


class Event(BaseModel):
    """A fact that happened outside, with the CloudEvents 1.0 context attributes.

    ``source`` and ``id`` together name the event everywhere in Sluice (see `identity`). ``data`` is JSON with finite
    numbers and without Prefect's hydration key at any depth. Attributes beyond the standard ones are kept in
    ``extensions``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    specversion: Literal["1.0"] = "1.0"
    id: Attribute
    source: Attribute
    type: Attribute
    subject: Annotated[str, StringConstraints(max_length=4096)] | None = None
    time: Annotated[AwareDatetime, Field(strict=False)]
    data: SkipValidation[JsonValue] = None
    """Not validated again: that costs as much as reading the message, and `parse_json` has let it in."""
    extensions: dict[str, bool | int | str] = Field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The name of the event in everything that is kept of it, made of its source and its id."""
        return identity_of(self.source, self.id)

    def to_json(self) -> bytes:
        """The event as structured-mode CloudEvents JSON, extensions at top level, as the journal holds it."""
        body: dict[str, Any] = {
            "specversion": self.specversion,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "time": self.time,
        }
        if self.subject is not None:
            body["subject"] = self.subject
        if self.data is not None:
            body["data"] = self.data
        body.update(self.extensions)
        return to_json(body)


def parse_json(raw: bytes, limits: Limits) -> JsonValue:
    """Untrusted bytes as a JSON value that is safe to carry on.

    Size and depth are checked before parsing. Raises `RejectedEvent` with one of the codes ``too-large``, ``too-deep``,
    ``not-json``, ``hydration`` or ``nul``.
    """
    if len(raw) > limits.max_bytes:
        msg = f"the message has {len(raw)} bytes; at most {limits.max_bytes} are accepted (limits.max_event_bytes)"
        raise RejectedEvent("too-large", msg)
    _check_depth(raw, limits.max_depth)
    escaped = b"\\u" in raw
    try:
        value = _decode(raw)
        if escaped and _SURROGATE_ESCAPE.search(raw):
            to_json(value)  # lone surrogates cannot be carried on
    except RejectedEvent:
        raise
    except (ValueError, RecursionError) as error:
        raise RejectedEvent("not-json", f"the message is not JSON: {error}") from error
    if _HYDRATION_BYTES in raw or (escaped and _LETTER_ESCAPE.search(raw)):
        refuse_hydration(value)
    if _NUL_ESCAPE in raw:
        _refuse_nul(value)
    return value


def parse_event(
    raw: bytes,
    *,
    limits: Limits,
    default_type: str | None = None,
    default_source: str | None = None,
    default_id: str | None = None,
    from_outside: bool = True,
) -> Event:
    """Untrusted bytes as an event.

    A JSON object with a ``specversion`` (other than null) is read as a CloudEvent; any other object becomes the
    ``data`` of an event of ``default_type`` under ``default_id`` (or a random id), if the source names a default type.
    Raises `RejectedEvent`, with the code ``reserved`` for an event that only Sluice itself may make, unless
    ``from_outside`` is false.
    """
    value = parse_json(raw, limits)
    if not isinstance(value, dict):
        msg = f"the message is {_kind(value)}, not a JSON object"
        raise RejectedEvent("not-an-object", msg)
    if value.get("specversion") is not None:
        if from_outside:
            return refuse_reserved(event_from_mapping(value, default_source=default_source))
        if is_own_type(str(value.get("type"))) or is_own_source(str(value.get("source"))):
            return stored_event(value)  # a file's name may hold what no attribute from outside may
        return event_from_mapping(value, default_source=default_source)
    if default_type is None:
        msg = (
            "the message is not a CloudEvent (no `specversion`), and its source names no default `type` for plain JSON"
        )
        raise RejectedEvent("not-a-cloudevent", msg)
    event = Event(
        id=default_id or str(uuid.uuid4()),
        source=default_source or "sluice",
        type=default_type,
        time=datetime.now(UTC),
        data=value,
    )
    return refuse_reserved(event) if from_outside else event


def event_from_mapping(value: Mapping[str, Any], *, default_source: str | None = None) -> Event:
    """A parsed CloudEvent from outside as an event; raises `RejectedEvent` that names the attribute at fault.

    ``default_source`` is the source of one that names none.
    """
    return _event(checked(value), default_source)


def stored_event(value: Mapping[str, Any]) -> Event:
    """An event that was accepted before, by whatever version; raises `RejectedEvent` for what cannot be one."""
    return _event(value, None)


def _event(value: Mapping[str, Any], default_source: str | None) -> Event:
    extensions: dict[str, Any] = {}
    fields: Mapping[str, Any] = value
    if others := value.keys() - _KEPT:
        extensions = {name: value[name] for name in others - STANDARD}
        fields = {name: value[name] for name in value.keys() - others}
    if "time" not in fields:
        fields = {**fields, "time": datetime.now(UTC)}
    if default_source is not None and "source" not in fields:
        fields = {**fields, "source": default_source}
    try:
        return Event(**fields, extensions=extensions)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise RejectedEvent("not-a-cloudevent", f"the CloudEvent is not valid: {faults}") from error


def refuse_reserved(event: Event) -> Event:
    """The event, unless it claims to come from Sluice itself: then raise `RejectedEvent` (``reserved``).

    Types ``sluice.*`` and sources ``files/*`` mean that a listener of this installation saw something; a publisher who
    used them would have flows open any path. Compared as people read them: letter case, compatibility forms, white
    space and invisible characters make no other name of it.
    """
    if _as_read(event.type) == RESUME:
        reason = (
            f"the type {event.type!r} is that of a resume message: send it to a source that carries signals "
            f"(the channel or stream {RESUME!r}, or POST /signals)"
        )
    elif is_own_type(event.type):
        reason = f"the type {event.type!r} is reserved: only Sluice makes events whose type begins with {OWN_TYPES!r}"
    elif is_own_source(event.source):
        reason = (
            f"the source {event.source!r} is reserved: sources that begin with {OWN_SOURCES!r} are the watched folders"
        )
    else:
        return event
    raise RejectedEvent("reserved", reason)


def is_own_type(type_: str) -> bool:
    """Whether only Sluice makes events of this type."""
    return _as_read(type_).startswith(OWN_TYPES)


def is_own_source(source: str) -> bool:
    """Whether the source is, or would be read as, a watched folder of Sluice."""
    return _as_read(source).startswith(OWN_SOURCES)


def _as_read(name: str) -> str:
    """The name as a reader takes it, for comparison only."""
    if name.isascii():
        return "".join(name.split()).casefold()
    shown = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(char for char in shown if unicodedata.category(char) not in _UNSEEN)


def refuse_hydration(value: JsonValue) -> None:
    """Raise `RejectedEvent` where Prefect's hydration key stands anywhere in ``value``.

    The server would put a workspace variable or a rendered template in its place, chosen by whoever sent the message.
    """
    waiting: list[JsonValue] = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if HYDRATION_KEY in part:
                msg = f"the key {HYDRATION_KEY!r} is refused: Prefect would replace it by server-side values"
                raise RejectedEvent("hydration", msg)
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _refuse_nul(value: JsonValue) -> None:
    """Raise `RejectedEvent` where a text holds the character NUL: Prefect on PostgreSQL fails on it, every time."""
    waiting: list[JsonValue] = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting.extend(part)
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
        elif isinstance(part, str) and "\0" in part:
            raise RejectedEvent("nul", "a text holds the character NUL (\\u0000), which PostgreSQL cannot store")


def _check_depth(raw: bytes, max_depth: int) -> None:
    if raw.count(b"{") + raw.count(b"[") <= max_depth:
        return
    depth = 0
    for match in _STRUCTURE.finditer(raw):
        mark = raw[match.start()]
        if mark in b"[{":
            depth += 1
            if depth > max_depth:
                msg = f"the message nests deeper than {max_depth} levels (limits.max_depth)"
                raise RejectedEvent("too-deep", msg)
        elif mark in b"]}":
            depth -= 1


def _refuse_constant(name: str) -> None:
    raise RejectedEvent("not-json", f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise RejectedEvent("not-json", f"the number {text[:40]} is too large for a float")
    return number


def _sixty_four_bits(text: str) -> int:
    # Longer integers do not survive the JSON libraries that the value passes through on its way.
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:  # noqa: PLR2004 - the bounds of 64 bits
        raise RejectedEvent("not-json", f"the integer {text[:40]} does not fit into 64 bits")
    return int(text)


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RejectedEvent("not-json", f"the key {twice[:80]!r} stands twice in one object")
    return found


def _kind(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "an object"


# Built once: making a decoder costs as much as a small message's work.
_decode_carefully: Final = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, parse_int=_sixty_four_bits, object_pairs_hook=_unique
).decode


def _decode(raw: bytes) -> JsonValue:
    """The JSON text's value, by a fast decoder wherever that one could only find the same as the careful one."""
    shape = raw.translate(_SHAPE, b"+-")
    if _COLON_ESCAPE not in raw and _LONG_NUMBER not in shape and _LARGE_EXPONENT not in shape:
        try:
            value: JsonValue = from_json(raw, allow_inf_nan=False)
        except ValueError:
            pass  # the careful decoder says what is wrong
        else:
            # Of a key that stands twice in one object, one is gone, and with it a colon.
            if to_json(value).count(b":") == raw.count(b":"):
                return value
    carefully: JsonValue = _decode_carefully(raw.decode("utf-8"))
    return carefully
