"""Webhooks of other systems, ``POST /hooks/NAME``: a delivery with a valid signature or secret becomes an event."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from config.api import ApiSettings
from config.sources import HookSource
from events.errors import ConfigError, RejectedEvent
from events.event import HOOKS, Event, refuse_reserved
from events.untrusted_json import Limits, parse_json
from services.listeners.http.bodies import content_type, read_body
from services.listeners.http.callers import Callers
from services.listeners.http.hooks.signatures import BadDelivery, usable_secret, verify
from services.listeners.http.problem import ProblemDetails, rejected
from services.listeners.message_intake import Message, event_intake
from services.store.access.hook_deliveries import HookDeliveries
from services.store.dead_letters import DeadLetters

if TYPE_CHECKING:
    from services.listeners.http.posting import Emit


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook with its secrets."""

    source: HookSource
    secrets: tuple[bytes, ...]


def hooks_with_secrets(sources: Mapping[str, HookSource], environ: Mapping[str, str]) -> dict[str, Hook]:
    """The hooks; raises `ConfigError` naming each variable without a usable secret."""
    found, problems = {}, []
    for name, source in sources.items():
        secrets = []
        for variable in source.secret_names:
            try:
                secrets.append(usable_secret(source, environ.get(variable, "")))
            except ValueError as error:
                problems.append(
                    f"sources.http.hooks.{name}: the environment variable {variable} holds no secret ({error}):"
                    " set it to the secret that the sender signs with (the file .env beside the project file will do)"
                )
        found[name] = Hook(source, tuple(secrets))
    if problems:
        raise ConfigError(*problems)
    return found


@dataclass(kw_only=True, eq=False)
class HookReceiver:
    """Handles ``POST /hooks/NAME``. No token is needed: the signature is the proof."""

    hooks: Mapping[str, Hook]
    settings: ApiSettings
    limits: Limits
    emit_for: Callable[[str], Emit]
    dead: DeadLetters
    deliveries: HookDeliveries | None
    callers: Callers

    def __post_init__(self) -> None:
        self._emits = {name: self.emit_for(f"{HOOKS}{name}") for name in self.hooks}
        self._intakes = {
            name: event_intake(
                listener=f"{HOOKS}{name}", emit=self._emits[name], dead=self.dead, limits=self.limits, default_type=None
            )
            for name in self.hooks
        }

    async def receive(self, request: Request) -> Response:
        """Accept one delivery; raises `ProblemDetails`."""
        name = request.path_params["name"]
        hook = self.hooks.get(name)
        if hook is None:
            raise ProblemDetails(
                404, "unknown-hook", f"there is no webhook {name!r}", "sources.http.hooks in the config has them"
            )
        body = await read_body(request, self.limits.max_bytes, self.settings)
        try:
            signature = verify(hook.source, hook.secrets, request.headers, body)
        except BadDelivery as error:
            self.callers.refused(request, "bad-signature")
            what = "sign the raw body with the secret that Sluice has for this hook, and send it at once"
            raise ProblemDetails(401, "bad-signature", str(error), what) from error
        content_type(request)
        event = await self._event(name, hook.source, request, body)
        if signature is not None and self.deliveries is not None:
            await self._refuse_copy(request, name, hook.source, signature, event.id)
        async with asyncio.timeout(self.settings.journal_timeout_seconds):
            (taken,) = await self._emits[name]([event])
        return JSONResponse({"id": event.id, "source": event.source, "new": taken.new}, status_code=202)

    async def _event(self, name: str, source: HookSource, request: Request, body: bytes) -> Event:
        """Return the event of a verified delivery; its id is the sender's, so that a repeated delivery is one event.

        Raises `ProblemDetails` for a delivery that is no event, after it is kept as a dead letter.
        """
        header = source.delivery_header
        id_ = str(uuid.uuid4()) if header is None else request.headers.get(header, "")
        if not id_:
            raise ProblemDetails(
                400, "no-delivery-id", f"the header {header} with the delivery's id is missing", f"send {header}"
            )
        kind = request.headers.get(source.kind_header, "") if source.kind_header else ""
        try:
            fields: dict[str, Any] = {
                "id": id_,
                "source": f"{HOOKS}{name}",
                "type": f"{source.type}.{kind}" if kind else source.type,
                "time": datetime.now(UTC),
                "data": parse_json(body, self.limits),
            }
            return _checked(fields)
        except RejectedEvent as error:
            intake = self._intakes[name]
            message = Message(raw=body, key=f"{id_[:200]}", origin=f"the body of POST {request.url.path}")
            async with asyncio.timeout(self.settings.journal_timeout_seconds):
                raise rejected(error, await intake.reject(message, error)) from error

    async def _refuse_copy(
        self, request: Request, name: str, source: HookSource, signature: str, delivery: str
    ) -> None:
        """Raise the 409 for a body that another delivery had a moment ago: the id in the header is not signed."""
        assert self.deliveries is not None  # noqa: S101 - the caller has looked
        first = await self.deliveries.first(name, signature, delivery, seconds=source.replay_seconds)
        if first != delivery:
            self.callers.refused(request, "replayed")
            raise ProblemDetails(
                409,
                "replayed",
                f"the delivery {first!r} brought this very body within the last {source.replay_seconds:g} s",
                "send a delivery again under its own id; for another one wait, or make `replay_seconds` shorter",
            )


def _checked(fields: Mapping[str, Any]) -> Event:
    """Return the event; raises `RejectedEvent` for an id or type in a header that is invalid or reserved."""
    try:
        event = Event(**fields)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise RejectedEvent("not-a-cloudevent", f"the delivery makes no event: {faults}") from error
    refuse_reserved(event.model_copy(update={"source": "-"}))
    return event
