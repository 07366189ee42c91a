"""The event: a fact from outside as a frozen CloudEvents 1.0 value, and the only parser of untrusted bytes."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Mapping
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
from pydantic_core import to_json

from events.cloudevents import STANDARD, checked
from events.errors import RejectedEvent
from events.identity import identity_of
from events.untrusted_json import Limits, parse_json

FILE_ARRIVED: Final = "sluice.file.arrived"
RESUME: Final = "sluice.resume"

OWN_TYPES: Final = "sluice."
"""Only Sluice makes types with this prefix, and sources with one of `OWN_SOURCES`: the watched folders, and the
webhooks whose signature was verified.
"""
WATCHED: Final = "files/"
HOOKS: Final = "hooks/"
OWN_SOURCES: Final = (WATCHED, HOOKS)

_KEPT: Final = frozenset({"specversion", "id", "source", "type", "subject", "time", "data"})

_UNSEEN: Final = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp", "Mn"})
"""Categories of characters that are invisible, or shown only on top of others."""

Attribute = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Event(BaseModel):
    """A fact that happened outside, with the CloudEvents 1.0 context attributes.

    ``source`` and ``id`` together identify the event everywhere in Sluice (see `identity`). ``data`` is JSON with
    finite numbers and without Prefect's hydration key at any depth. Attributes beyond the standard ones are kept in
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
    """Not validated again, which would take as long as parsing the message: `parse_json` has checked it."""
    extensions: dict[str, bool | int | str] = Field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The event's name in all records, made of its source and its id."""
        return identity_of(self.source, self.id)

    def to_json(self) -> bytes:
        """Return the event as structured-mode CloudEvents JSON, extensions at top level, as in the journal."""
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


def parse_event(
    raw: bytes,
    *,
    limits: Limits,
    default_type: str | None = None,
    default_source: str | None = None,
    default_id: str | None = None,
    from_outside: bool = True,
) -> Event:
    """Parse untrusted bytes as an event.

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
            return stored_event(value)  # a file's name may have characters that attributes from outside must not have
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
    # The listener sets the source, not the message.
    return refuse_reserved(event) if from_outside and is_own_type(event.type) else event


def event_from_mapping(value: Mapping[str, Any], *, default_source: str | None = None) -> Event:
    """Return a parsed CloudEvent from outside as an event; raises `RejectedEvent`, which names the wrong attribute.

    ``default_source`` is used for an event without a source.
    """
    return _event(checked(value), default_source)


def stored_event(value: Mapping[str, Any]) -> Event:
    """Return an event that any version has accepted before; raises `RejectedEvent` for data that cannot be one."""
    return _event(value, None)


def _event(value: Mapping[str, Any], default_source: str | None) -> Event:
    """Return the event with the defaults that it lacks; raises `RejectedEvent` with every field that is wrong."""
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
    """Return the event, unless it claims to come from Sluice itself: then raise `RejectedEvent` (``reserved``).

    Types ``sluice.*`` and sources ``files/*`` mean that a listener of this installation saw something; a publisher that
    used them could have flows open any path. Sources ``hooks/*`` mean that a signature was verified. Names are compared
    as people read them: letter case, compatibility forms, white space and invisible characters make no difference.
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
            f"the source {event.source!r} is reserved: sources that begin with 'files/' are the watched folders, and"
            " those with 'hooks/' the webhooks"
        )
    else:
        return event
    raise RejectedEvent("reserved", reason)


def is_own_type(type_: str) -> bool:
    """Whether only Sluice makes events of this type."""
    return _as_read(type_).startswith(OWN_TYPES)


def is_own_source(source: str) -> bool:
    """Whether the source is, or would be read as, a watched folder or a webhook of Sluice."""
    return _as_read(source).startswith(OWN_SOURCES)


def _as_read(name: str) -> str:
    """Return the name as people read it, for comparison only."""
    if name.isascii():
        return "".join(name.split()).casefold()
    shown = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(char for char in shown if unicodedata.category(char) not in _UNSEEN)


def _kind(value: JsonValue) -> str:
    """Return what JSON calls the kind of a value."""
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
