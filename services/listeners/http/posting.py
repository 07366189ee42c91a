"""Events and signals by POST: answered with 202 once the journal holds the event, or the signal is recorded."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from config.api import ApiSettings
from config.sources import HttpSource
from events.cloudevents import header_text
from events.errors import RejectedEvent
from events.event import Event, event_from_mapping, refuse_reserved
from events.signal import Outcome, ResumeSignal
from events.untrusted_json import Limits, parse_json
from services.listeners.http.bodies import BATCH, CLOUDEVENT, content_type, read_body
from services.listeners.http.callers import Callers
from services.listeners.http.problem import ProblemDetails, rejected
from services.listeners.message_intake import Message, MessageIntake, event_intake, signal_intake
from services.store.access.tokens import Limited
from services.store.dead_letters import DeadLetters
from services.store.events.journal import Appended
from services.store.signals.signal_record import SignalRecord

Emit = Callable[[Sequence[Event]], Awaitable[Sequence[Appended]]]


LONGEST_WAIT_SECONDS: Final = 30.0
"""Longest time that a call waits for the outcome of its signal."""


@dataclass(kw_only=True, eq=False)
class Posting:
    """Handles ``POST /events`` and ``POST /signals``; requests are parsed by hand, for speed.

    ``emit_for`` returns the function that journals events for a listener's name: ``http``, and ``http:NAME`` for a
    named source.
    """

    settings: ApiSettings
    limits: Limits
    sources: Mapping[str, HttpSource]
    emit_for: Callable[[str], Emit]
    submit: Callable[[ResumeSignal], Awaitable[object]]
    outcome: Callable[[str, float], Awaitable[SignalRecord | None]] | None
    dead: DeadLetters
    callers: Callers

    def __post_init__(self) -> None:
        self._emits: dict[str, Emit] = {}
        self._intakes: dict[str, MessageIntake[Event]] = {}
        for name, source in {"": HttpSource(), **self.sources}.items():
            listener = f"http:{name}" if name else "http"
            self._emits[name] = self.emit_for(listener)
            self._intakes[name] = event_intake(
                listener=listener, emit=self._emits[name], dead=self.dead, limits=self.limits, default_type=source.type
            )
        self._signals = signal_intake(listener="http:signals", submit=self.submit, dead=self.dead, limits=self.limits)

    async def events(self, request: Request, caller: Limited) -> Response:
        """Accept one event, structured, binary or plain JSON, or a batch of them."""
        name = request.path_params.get("source", "")
        intake = self._intakes.get(name)
        if intake is None:
            known = ", ".join(sorted(self._intakes)[1:]) or "none"
            raise ProblemDetails(
                404, "unknown-source", f"there is no HTTP source {name!r}", f"sources.http in the config has: {known}"
            )
        kind = content_type(request)
        if kind == BATCH:
            body = await read_body(request, self.settings.max_batch_bytes, self.settings)
            events = await self._parse_batch(intake, body)
        else:
            body = await read_body(request, self.limits.max_bytes, self.settings)
            events = [await self._parse_one(intake, request, kind, body)]
        self.callers.demand_sources(request, caller, (event.source for event in events))
        self.callers.charge_more(caller, len(events) - 1)
        async with asyncio.timeout(self.settings.journal_timeout_seconds):
            taken = await self._emits[name](events)
        answers = [
            {"id": event.id, "source": event.source, "new": one.new} for event, one in zip(events, taken, strict=True)
        ]
        return JSONResponse({"events": answers} if kind == BATCH else answers[0], status_code=202)

    async def signal(self, request: Request, caller: Limited) -> Response:
        """Accept one signal; with ``?wait=SECONDS`` the response has the outcome that it has by then."""
        content_type(request)
        seconds = _seconds_to_wait(request)
        message = Message(
            raw=await read_body(request, self.limits.max_bytes, self.settings),
            key=str(uuid.uuid4()),
            origin="the body of POST /signals",
        )
        try:
            signal = self._signals.parse(message)
        except RejectedEvent as error:
            raise await self._kept(self._signals, message, error) from error
        self.callers.demand_key(request, caller, signal.key)
        async with asyncio.timeout(self.settings.journal_timeout_seconds):
            await self.submit(signal)
        record = await self.outcome(signal.id, seconds) if seconds and self.outcome is not None else None
        if record is None:
            return JSONResponse({"id": signal.id}, status_code=202)
        said = {"id": signal.id, "outcome": record.status, "reason": record.reason}
        return JSONResponse(said, status_code=200 if record.status in set(Outcome) else 202)

    async def _parse_one(self, intake: MessageIntake[Event], request: Request, kind: str, body: bytes) -> Event:
        """Return the event of a request, in one of three forms: binary, structured, or plain JSON.

        Raises `ProblemDetails` after the body is kept as a dead letter.
        """
        headers = [(name.lower(), value) for name, value in request.headers.raw if name.lower().startswith(b"ce-")]
        plain = not headers and kind != CLOUDEVENT
        message = _message(request, kind, headers, body) if plain else None
        try:
            if message is not None:
                return intake.parse(message)
            if kind == CLOUDEVENT:
                return _cloudevent(intake, parse_json(body, self.limits))
            return self._binary(intake, headers, body)
        except RejectedEvent as error:
            raise await self._kept(intake, message or _message(request, kind, headers, body), error) from error

    async def _kept(self, intake: MessageIntake[Any], message: Message, error: RejectedEvent) -> ProblemDetails:
        """Return the problem to respond with, once the dead letter that it names is kept."""
        async with asyncio.timeout(self.settings.journal_timeout_seconds):
            return rejected(error, await intake.reject(message, error))

    def _binary(self, intake: MessageIntake[Event], headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Event:
        """Return an event whose attributes are in the headers ``ce-…`` and whose data is the body."""
        attributes: dict[str, Any] = {}
        for header, value in headers:
            name = header.decode("latin-1")
            if name.removeprefix("ce-") in {"data", *attributes}:
                said = "is not an attribute: data is the body" if name == "ce-data" else "stands twice"
                raise RejectedEvent("not-a-cloudevent", f"the header {name} {said}")
            attributes[name.removeprefix("ce-")] = header_text(name, value)
        data = parse_json(body, self.limits) if body else None
        return _cloudevent(intake, {**attributes, "data": data})

    async def _parse_batch(self, intake: MessageIntake[Event], body: bytes) -> list[Event]:
        """Return the events of a batch; if one is refused, none is accepted and the batch becomes one dead letter."""
        try:
            return self._items(intake, body)
        except RejectedEvent as error:
            message = Message(raw=body, key=str(uuid.uuid4()), origin="a batch by POST")
            raise await self._kept(intake, message, error) from error

    def _items(self, intake: MessageIntake[Event], body: bytes) -> list[Event]:
        """Return the events of a batch; raises `RejectedEvent` with the position of the first that is none."""
        whole = Limits(max_bytes=self.settings.max_batch_bytes, max_depth=self.limits.max_depth + 1)
        items = parse_json(body, whole)
        if not isinstance(items, list):
            raise RejectedEvent("not-a-batch", f"a body of the type {BATCH} is a JSON array of CloudEvents")
        events = []
        for position, item in enumerate(items):
            try:
                events.append(self._item(intake, item))
            except RejectedEvent as error:
                raise RejectedEvent(error.code, f"item {position} of the batch: {error.reason}") from error
        return events

    def _item(self, intake: MessageIntake[Event], item: Any) -> Event:
        event = _cloudevent(intake, item)
        size = len(event.to_json())
        if size > self.limits.max_bytes:
            raise RejectedEvent("too-large", f"it has {size} bytes; at most {self.limits.max_bytes} are accepted")
        return event


def _message(request: Request, kind: str, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Message:
    """Return the whole posted message: attributes in headers belong to the event as much as the body."""
    head = b"".join(b"%s: %s\r\n" % header for header in headers)
    raw = head + f"content-type: {kind}\r\n\r\n".encode() + body if headers else body
    return Message(raw=raw, key=str(uuid.uuid4()), origin=f"the body of POST {request.url.path}")


def _cloudevent(intake: MessageIntake[Event], value: Any) -> Event:
    """Return the parsed CloudEvent as an event; raises `RejectedEvent`."""
    if not isinstance(value, dict):
        raise RejectedEvent("not-an-object", "it is not a JSON object")
    return refuse_reserved(event_from_mapping(value, default_source=intake.listener))


def _seconds_to_wait(request: Request) -> float:
    """Return how long the sender waits for the outcome of a signal."""
    given = request.query_params.get("wait", "0")
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT_SECONDS:
        what_to_do = f"give seconds, at most {LONGEST_WAIT_SECONDS:g}, or leave it out"
        raise ProblemDetails(400, "bad-wait", f"wait={given[:50]!r} is no time to wait", what_to_do)
    return seconds
