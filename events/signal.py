"""The resume signal: what another system says to a run that waits, and what became of it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from events.action import ResumeRun
from events.errors import RejectedEvent
from events.event import RESUME, Attribute, event_from_mapping
from events.untrusted_json import Limits, parse_json
from sluice.protocol import checked_key

DEFAULT_TTL_SECONDS = 86_400.0
LONGEST_TTL_SECONDS = 30 * 86_400.0
LONGEST_ID = 256


class Outcome(StrEnum):
    """What became of a signal, as it is recorded and told to whoever asked."""

    APPLIED = "applied"
    BUFFERED = "buffered"
    """Early: the run does not wait yet. Kept until its time to live ends."""
    DUPLICATE = "duplicate"
    """The same signal id again, or another signal had resumed this wait before."""
    LATE = "late"
    """The last wait for the key is over, and so is the run that waited; the signal is not kept."""
    REJECTED = "rejected"
    """The input does not fit; the run goes on waiting."""
    EXPIRED = "expired"
    UNANSWERED = "unanswered"
    """No signal: the run left its wait without an answer, and will wait again."""
    UNKNOWN_RUN = "unknown-run"


class ResumeSignal(BaseModel):
    """A request to resume (or reject) the run ``run_id``, or every run that waits for ``key``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Attribute
    run_id: UUID | None = None
    key: Annotated[str, AfterValidator(checked_key)] | None = None
    input: dict[str, JsonValue] = Field(default_factory=dict)
    action: Literal["resume", "reject"] = "resume"
    reason: Annotated[str, Field(max_length=1000)] | None = None
    by: Annotated[str, Field(max_length=200)] | None = None
    deliver: Literal["all", "one"] = "all"
    ttl_seconds: Annotated[float, Field(gt=0, le=LONGEST_TTL_SECONDS)] = DEFAULT_TTL_SECONDS
    buffer: bool = False
    """Whether it is kept for a later run, too, where the last wait for its key is over when it comes."""
    sent: AwareDatetime
    event_identity: str | None = None
    """The identity of the event that a rule turned into this signal, where there is one."""
    wait: str | None = None
    """The one wait that it is for, as an approval link names it; None for any wait of the run or for the key."""

    @model_validator(mode="after")
    def _addressed(self) -> Self:
        if (self.run_id is None) == (self.key is None):
            msg = "give exactly one of `run_id` and `key`"
            raise ValueError(msg)
        return self

    @property
    def target(self) -> str:
        """Whom the signal is for: ``run <id>`` or ``key <key>``. Signals to one target keep their order."""
        return f"run {self.run_id}" if self.run_id else f"key {self.key}"


def parse_signal(raw: bytes, *, limits: Limits, default_id: str | None = None) -> ResumeSignal:
    """Untrusted bytes (plain JSON, or a CloudEvent of type ``sluice.resume``) as a signal; raises `RejectedEvent`.

    The id of a CloudEvent's signal is the event's identity, unless its data names one: events of two sources are two
    signals. Plain JSON without an ``id`` gets ``default_id``, or a random one.
    """
    value = parse_json(raw, limits)
    if not isinstance(value, dict):
        raise RejectedEvent("not-an-object", "the resume message is not a JSON object")
    if value.get("specversion") is None:
        return signal_from_mapping({"id": default_id, **_own(value)} if default_id else _own(value))
    event = event_from_mapping(value)
    if event.type != RESUME:
        raise RejectedEvent("not-a-signal", f"a CloudEvent here must have the type {RESUME!r}, not {event.type!r}")
    if not isinstance(event.data, dict):
        raise RejectedEvent("not-a-signal", "the resume event's `data` is not a JSON object")
    own = {"id": signal_id_of(event.identity)} if event.data.get("id") is None else {}
    return signal_from_mapping({**_own(event.data), **own}, sent=event.time)


def signal_id_of(name: str) -> str:
    """What names a signal as an id of bounded length: the name, or its digest where that is too long."""
    return name if len(name) <= LONGEST_ID else hashlib.blake2b(name.encode(), digest_size=20).hexdigest()


def _own(message: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The message, unless it says what only Sluice may say: which event led to it, and which wait it is for."""
    for name in ("event_identity", "wait"):
        if name in message:
            raise RejectedEvent("not-a-signal", f"a resume message has no field `{name}`")
    return message


def signal_from_mapping(value: Mapping[str, Any], *, sent: datetime | None = None) -> ResumeSignal:
    """A parsed object as a signal; without an ``id`` it gets a random one. Raises `RejectedEvent`."""
    try:
        return ResumeSignal.model_validate({"id": str(uuid.uuid4()), "sent": sent or datetime.now(UTC), **value})
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'message'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        )
        raise RejectedEvent("not-a-signal", f"the resume message is not valid: {faults}") from error


def signal_for(action: ResumeRun) -> ResumeSignal:
    """The signal that the action sends; its id is the action's key. Raises `RejectedEvent`."""
    fields: dict[str, Any] = {
        "id": signal_id_of(action.idempotency_key),
        "input": action.input,
        "action": action.action,
        "by": action.by or f"rule {action.rule}",
        "deliver": action.deliver,
        "buffer": action.buffer,
        "event_identity": action.identities[0],
    }
    optional = {
        "key": action.key, "run_id": action.run_id, "reason": action.reason, "ttl_seconds": action.ttl_seconds
    }  # fmt: skip
    fields |= {name: value for name, value in optional.items() if value is not None}
    return signal_from_mapping(fields, sent=datetime.now(UTC))
