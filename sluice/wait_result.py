"""What a flow asks for when it waits, and what a wait may end with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from prefect.client.schemas.objects import State
from pydantic import BaseModel, ValidationError

from sluice.display import in_markdown, visible

OnReject = Literal["fail", "cancel"]

LONGEST_DESCRIPTION: Final = 20_000
"""Characters of what a wait says of itself."""


@dataclass(frozen=True, slots=True)
class WaitSpec:
    """What the flow asked for; durations in seconds."""

    name: str
    keys: tuple[str, ...]
    need_all: bool
    model: type[BaseModel] | None
    description: str
    """In markdown, for people; empty if the flow said nothing."""
    timeout_seconds: float | None
    remind_seconds: float | None
    suspend: bool
    poll_seconds: float

    @property
    def wanted(self) -> str:
        """The keys in words; empty if there are none."""
        return (" and " if self.need_all else " or ").join(repr(key) for key in self.keys)

    def deadline(self, since: datetime) -> datetime | None:
        """When a wait that began at ``since`` ends unanswered; None if it does not."""
        return _after(since, self.timeout_seconds)

    def reminder(self, since: datetime) -> datetime | None:
        """When somebody is reminded of a wait that began at ``since``; None if nobody is."""
        return _after(since, self.remind_seconds)

    def message(self, deadline: datetime | None, complaint: str) -> str:
        """The message of the paused state; ``complaint`` says what was wrong with the answer before, if it was."""
        message = f"Waits for a signal{f' with the key {self.wanted}' if self.keys else ''}"
        if deadline is not None:
            message += f" until {deadline:%Y-%m-%d %H:%M:%S} UTC"
        if complaint:
            message += f"; the last answer did not fit: {complaint}"
        return visible(message)

    def shown(self, message: str) -> str:
        """What stands above the form, in markdown: what is asked, and the message of the paused state."""
        message = in_markdown(message)
        return f"{self.description}\n\n{message}" if self.description else message


@dataclass(frozen=True, slots=True)
class Answer:
    """The wait was answered: ``value`` as it was sent, and for which of several keys (None: for all of them)."""

    value: dict[str, Any]
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The wait was answered by a rejection."""

    by: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Expiry:
    """Nobody answered in time."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The run goes on in another process: this one must end with the run's state as it is."""

    state: State[Any]


Result = Answer | Refusal | Expiry | Leave


class UnfitError(ValueError):
    """The answer passed Prefect's look at the schema, and the model refuses it."""


class WaitEndedError(RuntimeError):
    """The run was ended (cancelled, failed, deleted, …) by somebody else while it waited."""


class OneWaitError(RuntimeError):
    """The run is paused already, by another process or in another way."""

    def __init__(self) -> None:
        where = "in another process or in Prefect's own pause"
        super().__init__(f"The flow run waits already, {where}: a run can be in one wait at a time.")


def checked_description(text: str | None) -> str:
    """The description of a wait, fit to be shown; raises `TypeError` and `ValueError` for what is none."""
    if text is not None and not isinstance(text, str):
        raise TypeError(f"`description` must be text in markdown, not {text!r}")
    if text and len(text) > LONGEST_DESCRIPTION:
        raise ValueError(f"`description` has {len(text)} characters; at most {LONGEST_DESCRIPTION} are allowed")
    return visible(text or "", lines=True).strip()


def _after(start: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else start + timedelta(seconds=seconds)


def parse_answer(model: type[BaseModel] | None, value: dict[str, Any]) -> Any:
    """The answer as the flow asked for it; raises `UnfitError` where the model is stricter than its JSON schema."""
    if model is None:
        return value
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}" for fault in error.errors())
        raise UnfitError(visible("; ".join(faults))) from error
