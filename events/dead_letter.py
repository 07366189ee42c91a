"""The dead letter: a message that could not be handled, kept unchanged with the reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DeadLetter(BaseModel):
    """Something that was received and could not be handled.

    ``raw`` has the received bytes if they did not parse; otherwise the event's or signal's JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    id: str
    kind: Literal["message", "event", "signal", "job", "stored"]
    """``message``: did not parse; ``event``: an accepted event that a rule could not act on; ``signal``; ``job``;
    ``stored``: unreadable data in Redis under a key of Sluice.
    """
    carries: Literal["event", "signal"] = "event"
    """What a ``message`` should have been."""
    code: str
    """The short stable reason (see `RejectedEvent`)."""
    reason: str
    """The reason in words."""
    source: str
    raw: bytes
    event_id: str | None = None
    identity: str | None = None
    """The identity of an ``event``'s event."""
    rule: str | None = None
    attempts: int = 1
    first_failed: datetime = Field(default_factory=lambda: datetime.now(UTC))
    last_failed: datetime = Field(default_factory=lambda fields: fields["first_failed"])
