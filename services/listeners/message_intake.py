"""The intake of untrusted bytes: every message listener hands its messages to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Generic, Literal, Protocol, TypeAlias, TypeVar

import structlog

from events.dead_letter import DeadLetter
from events.errors import RejectedEvent
from events.event import Event, parse_event
from events.signal import ResumeSignal, parse_signal
from events.untrusted_json import Limits
from services.common import metrics
from services.common.backoff import ended
from services.store.dead_letters import DeadLetters, letter_id_of
from sluice.display import visible

log = structlog.get_logger()


class Identified(Protocol):
    """Content that messages are parsed into, with an id."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Identified)

_PORTION: Final = 125
_PORTION_BYTES: Final = 256 * 1024
"""Number of bytes that are parsed before other coroutines get a turn: a few milliseconds' worth."""

_TURNS_TO_SEND: Final = 6
"""Turns of the event loop after which a command to Redis has been sent, so that Redis works while the next message is
parsed."""


@dataclass(frozen=True, slots=True)
class Message:
    """A received message that has not been parsed yet.

    ``key`` names this delivery: a repeated delivery of the same message carries the same key, and no other message
    does. It becomes the id if the message has none. ``origin`` is for people. ``fault`` is set if the message is
    refused whatever its bytes are.
    """

    raw: bytes
    key: str
    origin: str
    fault: RejectedEvent | None = None


Sink: TypeAlias = Callable[[Sequence[Message]], Awaitable[None]]
"""Durable on return: each message was accepted or is a dead letter, and the listener may acknowledge all of them.

Raises `TransientError` or `Backpressure`; any of the messages may then have been accepted, and the same call again adds
only the missing ones.
"""


class MessageIntake(Generic[T]):
    """Parses messages, passes the valid ones on in their order, and keeps the others as dead letters."""

    def __init__(
        self,
        *,
        listener: str,
        parse: Callable[[Message], T],
        hand_on: Callable[[Sequence[T]], Awaitable[object]],
        dead: DeadLetters,
        carries: Literal["event", "signal"] = "event",
    ) -> None:
        self._carries = carries
        self.listener = listener
        self._parse = parse
        self._hand_on = hand_on
        self._dead = dead

    async def accept(self, messages: Sequence[Message]) -> None:
        """Accept the messages (see `Sink`), a portion at a time; one is parsed while the previous one is passed on."""
        refused: list[tuple[Message, RejectedEvent]] = []
        handing: asyncio.Task[None] | None = None
        try:
            for portion in _portions(messages):
                good = self._good(portion, refused)
                if handing is not None:
                    await handing
                handing = asyncio.create_task(self._hand(good))
                for _ in range(_TURNS_TO_SEND):
                    await asyncio.sleep(0)
            if handing is not None:
                await handing
        finally:
            if handing is not None:
                await ended(handing)
        # Last, so that a batch that is tried again does not count its refused messages again.
        for message, fault in refused:
            await self.reject(message, fault)
        metrics.received.labels(self.listener).inc(len(messages))

    def _good(self, messages: Iterable[Message], refused: list[tuple[Message, RejectedEvent]]) -> list[T]:
        good: list[T] = []
        for message in messages:
            try:
                good.append(self.parse(message))
            except RejectedEvent as error:
                refused.append((message, error))
        return good

    async def _hand(self, good: Sequence[T]) -> None:
        if good:
            await self._hand_on(good)

    def parse(self, message: Message) -> T:
        """The message's content; raises `RejectedEvent` and nothing else."""
        if message.fault is not None:
            raise message.fault
        try:
            return self._parse(message)
        except RejectedEvent:
            raise
        except Exception as error:
            # No bytes from outside may block the messages behind them, whatever fault of our parser they trigger.
            log.exception("the parser failed on a message", listener=self.listener, origin=message.origin)
            raise RejectedEvent("unparseable", f"the parser failed on the message: {error!r}") from error

    def identifies(self, message: Message) -> bool:
        """Whether a second copy of the message would be recognised by an id in the message itself."""
        try:
            return self.parse(message).id != message.key
        except RejectedEvent:
            return False

    async def reject(self, message: Message, error: RejectedEvent) -> str:
        """Keep the message as a dead letter with all its bytes, and log it; return the letter's id."""
        now = datetime.now(UTC)
        letter = DeadLetter(
            id=letter_id_of("message", self.listener, message.key),
            kind="message",
            carries=self._carries,
            code=error.code,
            reason=visible(f"{error.reason} ({message.origin})", 2000),
            source=self.listener,
            raw=message.raw,
            first_failed=now,
            last_failed=now,
        )
        await self._dead.add(letter)
        metrics.rejected.labels(self.listener, error.code).inc()
        log.warning(
            "message rejected and kept as a dead letter",
            listener=self.listener,
            origin=message.origin,
            code=error.code,
            reason=visible(error.reason, 200),
            letter_id=letter.id,
        )
        return letter.id


def _portions(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Divide messages into portions, so that parsing many large ones does not hold up the event loop."""
    portion: list[Message] = []
    weight = 0
    for message in messages:
        portion.append(message)
        weight += len(message.raw)
        if len(portion) >= _PORTION or weight >= _PORTION_BYTES:
            yield portion
            portion, weight = [], 0
    if portion:
        yield portion


def event_intake(
    *,
    listener: str,
    emit: Callable[[Sequence[Event]], Awaitable[object]],
    dead: DeadLetters,
    limits: Limits,
    default_type: str | None,
) -> MessageIntake[Event]:
    """Return an intake for events; plain JSON objects get ``default_type``, and the listener as their source."""

    def parse(message: Message) -> Event:
        return parse_event(
            message.raw, limits=limits, default_type=default_type, default_source=listener, default_id=message.key
        )

    return MessageIntake(listener=listener, parse=parse, hand_on=emit, dead=dead)


def signal_intake(
    *,
    listener: str,
    submit: Callable[[ResumeSignal], Awaitable[object]],
    dead: DeadLetters,
    limits: Limits,
) -> MessageIntake[ResumeSignal]:
    """Return an intake whose messages are resume signals, submitted one after the other in their order."""

    def parse(message: Message) -> ResumeSignal:
        return parse_signal(message.raw, limits=limits, default_id=message.key)

    async def hand_on(signals: Sequence[ResumeSignal]) -> None:
        for signal in signals:
            await submit(signal)

    return MessageIntake(listener=listener, parse=parse, hand_on=hand_on, dead=dead, carries="signal")
