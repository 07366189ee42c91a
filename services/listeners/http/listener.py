"""The HTTP listener: events and signals by POST, health and metrics by GET."""

from __future__ import annotations

import asyncio
import email.message
import hashlib
import hmac
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from config.settings import ApiSettings, is_loopback
from config.sources import HttpSource
from events.cloudevents import header_text
from events.errors import Backpressure, RejectedEvent, TransientError
from events.event import Event, event_from_mapping, refuse_reserved
from events.signal import ResumeSignal
from events.untrusted_json import Limits, parse_json
from services.common import metrics
from services.common.lingering_close import LingeringClose
from services.common.request_guard import App, RequestGuard
from services.listeners.http.endpoint_process import PREFIX
from services.listeners.http.endpoints import METHODS, Endpoints
from services.listeners.http.peer import is_own_user
from services.listeners.http.problem import ProblemDetails, for_now, plain_refusal, problem_response, rejected
from services.listeners.http.server import serve
from services.listeners.message_intake import Message, MessageIntake, event_intake, signal_intake
from services.operations.readiness import Readiness
from services.store.dead_letters import DeadLetters
from services.store.events.journal import Appended

CLOUDEVENT: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"

log = structlog.get_logger()

Emit = Callable[[Sequence[Event]], Awaitable[Sequence[Appended]]]
Handler = Callable[[Request], Awaitable[Response]]


class HttpListener:
    """Answers 202 only once the journal holds the event (or the signal is recorded).

    ``emit_for`` gives the journal's door for a listener's name: ``http``, and ``http:NAME`` for a named source.
    ``allowed_hosts`` are names under which it is reached beside its own. With ``trusts_own_user``, programs of this
    process's user on this machine need no token (where the system tells whose they are).
    ``endpoints`` are the project's own routes, behind the same guard, token and limits.
    ``readiness`` says whether the installation is ready, and why not; ``scrape`` makes the metrics' text of it.
    """

    def __init__(
        self,
        *,
        settings: ApiSettings,
        port: int,
        limits: Limits,
        sources: Mapping[str, HttpSource],
        emit_for: Callable[[str], Emit],
        submit: Callable[[ResumeSignal], Awaitable[object]],
        dead: DeadLetters,
        readiness: Callable[[], Awaitable[Readiness]],
        scrape: Callable[[Readiness], Awaitable[bytes]],
        endpoints: Endpoints | None = None,
        allowed_hosts: Collection[str] = (),
        trusts_own_user: bool = False,
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._readiness = readiness
        self._scrape = scrape
        self._endpoints = endpoints
        self._token = _digest(settings.token) if settings.token else None
        self._allowed_hosts = {*allowed_hosts, settings.host}
        self._trusts_own_user = trusts_own_user
        self._port = port
        self.port: int | None = None
        """Where it listens, once it does."""
        self._emits: dict[str, Emit] = {}
        self._intakes: dict[str, MessageIntake[Event]] = {}
        for name, source in {"": HttpSource(), **sources}.items():
            listener = f"http:{name}" if name else "http"
            self._emits[name] = emit_for(listener)
            self._intakes[name] = event_intake(
                listener=listener, emit=self._emits[name], dead=dead, limits=limits, default_type=source.type
            )
        self._signals = signal_intake(listener="http:signals", submit=submit, dead=dead, limits=limits)
        self._submit = submit

    def status(self) -> Mapping[str, Any]:
        """``ready`` while it listens."""
        return {"ready": self.port is not None, "host": self._settings.host, "port": self.port}

    async def run(self) -> None:
        """Serve until cancelled; requests in hand are then answered for up to two seconds.

        Raises `ConfigError` if the port is taken.
        """

        def listening(port: int) -> None:
            self.port = port

        try:
            await serve(self.app(), settings=self._settings, port=self._port, listening=listening)
        finally:
            self.port = None

    def app(self) -> App:
        """The ASGI application."""
        inner = Starlette(
            routes=[
                self._route("/events", "POST", self._events),
                self._route("/events/{source}", "POST", self._events),
                self._route("/signals", "POST", self._take_signal),
                self._route("/health/live", "GET", _live, guarded=False),
                self._route("/health/ready", "GET", self._health, guarded=False),
                self._route("/metrics", "GET", self._metrics),
                *self._own_routes(),
            ],
            exception_handlers={HTTPException: plain_refusal},
        )
        inner.router.redirect_slashes = False  # a redirect would repeat the Host that the request claims
        any_address = not is_loopback(self._settings.host)
        return LingeringClose(RequestGuard(inner, names=self._allowed_hosts, any_address=any_address))

    def _own_routes(self) -> Iterator[Route]:
        endpoints = self._endpoints
        if endpoints is not None:

            async def answer(request: Request) -> Response:
                return await endpoints.answer(request, await self._body(request, self._limits.max_bytes))

            yield self._route(f"{PREFIX}/{{path:path}}", METHODS, answer)

    def _route(self, path: str, methods: str, handler: Handler, *, guarded: bool = True) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                if guarded:
                    self._authorize(request)
                response = await handler(request)
            except ProblemDetails as problem:
                response = problem_response(problem)
            except RejectedEvent as error:
                response = problem_response(rejected(error))
            except ClientDisconnect:
                response = Response(status_code=400)  # nobody is left to read it
            except (TransientError, Backpressure, TimeoutError) as error:
                log.warning("request refused for now", path=request.url.path, error=str(error) or "timed out")
                response = problem_response(for_now(error))
            metrics.http_answers.labels(path, response.status_code).inc()
            return response

        return Route(path, endpoint, methods=methods.split())

    def _authorize(self, request: Request) -> None:
        if not self._is_authorized(request):
            raise ProblemDetails(
                401,
                "unauthorized",
                "the request carries no valid token",
                "send `Authorization: Bearer <token>` with the token in SLUICE_API__TOKEN, or that `sluice env` prints",
            )

    def _is_authorized(self, request: Request) -> bool:
        if self._token is None:
            return True
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        # Digests are compared, so that the time taken tells nothing of the token, not even its length.
        if scheme.lower() == "bearer" and hmac.compare_digest(_digest(token.strip()), self._token):
            return True
        own = self._trusts_own_user and "authorization" not in request.headers
        return own and is_own_user(request.scope.get("client"), request.scope.get("server"))

    async def _events(self, request: Request) -> Response:
        name = request.path_params.get("source", "")
        intake = self._intakes.get(name)
        if intake is None:
            known = ", ".join(sorted(self._intakes)[1:]) or "none"
            raise ProblemDetails(
                404, "unknown-source", f"there is no HTTP source {name!r}", f"sources.http in the config has: {known}"
            )
        kind = _content_type(request)
        if kind == BATCH:
            body = await self._body(request, self._settings.max_batch_bytes)
            events = await self._parse_batch(intake, body)
        else:
            body = await self._body(request, self._limits.max_bytes)
            events = [await self._parse_one(intake, request, kind, body)]
        async with asyncio.timeout(self._settings.journal_timeout_seconds):
            taken = await self._emits[name](events)
        answers = [
            {"id": event.id, "source": event.source, "new": one.new} for event, one in zip(events, taken, strict=True)
        ]
        return JSONResponse({"events": answers} if kind == BATCH else answers[0], status_code=202)

    async def _take_signal(self, request: Request) -> Response:
        _content_type(request)
        message = Message(
            raw=await self._body(request, self._limits.max_bytes),
            key=str(uuid.uuid4()),
            origin="the body of POST /signals",
        )
        try:
            signal = self._signals.parse(message)
        except RejectedEvent as error:
            raise await self._kept(self._signals, message, error) from error
        async with asyncio.timeout(self._settings.journal_timeout_seconds):
            await self._submit(signal)
        return JSONResponse({"id": signal.id}, status_code=202)

    async def _parse_one(self, intake: MessageIntake[Event], request: Request, kind: str, body: bytes) -> Event:
        headers = [(name.lower(), value) for name, value in request.headers.raw if name.lower().startswith(b"ce-")]
        raw = body
        if headers:
            # The attributes belong to the event as much as the body: a dead letter keeps both.
            head = b"".join(b"%s: %s\r\n" % header for header in headers)
            raw = head + f"content-type: {kind}\r\n\r\n".encode() + body
        message = Message(raw=raw, key=str(uuid.uuid4()), origin=f"the body of POST {request.url.path}")
        try:
            if kind == CLOUDEVENT:
                return _cloudevent(intake, parse_json(body, self._limits))
            return self._binary(intake, headers, body) if headers else intake.parse(message)
        except RejectedEvent as error:
            raise await self._kept(intake, message, error) from error

    async def _kept(self, intake: MessageIntake[Any], message: Message, error: RejectedEvent) -> ProblemDetails:
        """The problem to answer with, once the dead letter that it names is kept."""
        async with asyncio.timeout(self._settings.journal_timeout_seconds):
            return rejected(error, await intake.reject(message, error))

    def _binary(self, intake: MessageIntake[Event], headers: Sequence[tuple[bytes, bytes]], body: bytes) -> Event:
        attributes: dict[str, Any] = {}
        for header, value in headers:
            name = header.decode("latin-1")
            if name.removeprefix("ce-") in {"data", *attributes}:
                said = "is not an attribute: data is the body" if name == "ce-data" else "stands twice"
                raise RejectedEvent("not-a-cloudevent", f"the header {name} {said}")
            attributes[name.removeprefix("ce-")] = header_text(name, value)
        data = parse_json(body, self._limits) if body else None
        return _cloudevent(intake, {**attributes, "data": data})

    async def _parse_batch(self, intake: MessageIntake[Event], body: bytes) -> list[Event]:
        """All events of a batch; if one is refused, none is taken and the batch becomes one dead letter."""
        try:
            return self._items(intake, body)
        except RejectedEvent as error:
            message = Message(raw=body, key=str(uuid.uuid4()), origin="a batch by POST")
            raise await self._kept(intake, message, error) from error

    def _items(self, intake: MessageIntake[Event], body: bytes) -> list[Event]:
        whole = Limits(max_bytes=self._settings.max_batch_bytes, max_depth=self._limits.max_depth + 1)
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
        if size > self._limits.max_bytes:
            raise RejectedEvent("too-large", f"it has {size} bytes; at most {self._limits.max_bytes} are accepted")
        return event

    async def _body(self, request: Request, limit: int) -> bytes:
        """The body, never read further than ``limit``."""
        too_large = ProblemDetails(
            413,
            "too-large",
            f"the body has more than {limit} bytes",
            "send less, or raise SLUICE_LIMITS__MAX_EVENT_BYTES (for a batch SLUICE_API__MAX_BATCH_BYTES)",
        )
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.body_timeout_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
        except TimeoutError as error:
            seconds = self._settings.body_timeout_seconds
            raise ProblemDetails(
                408, "too-slow", f"the body was not there after {seconds:g} s", "send it faster"
            ) from error
        return bytes(body)

    async def _health(self, request: Request) -> Response:
        found = await self._readiness()
        told = found.as_health(whole=self._is_authorized(request))
        return JSONResponse(told, status_code=200 if found.ready else 503)

    async def _metrics(self, _request: Request) -> Response:
        return Response(await self._scrape(await self._readiness()), media_type=_METRICS)


async def _live(request: Request) -> Response:
    del request
    return JSONResponse({"live": True})


def _cloudevent(intake: MessageIntake[Event], value: Any) -> Event:
    """The parsed CloudEvent as an event; raises `RejectedEvent`."""
    if not isinstance(value, dict):
        raise RejectedEvent("not-an-object", "it is not a JSON object")
    return refuse_reserved(event_from_mapping(value, default_source=intake.listener))


def _content_type(request: Request) -> str:
    """The media type of the body, which must be JSON in UTF-8; empty where an event in headers comes without one.

    A web page in a browser on this machine can send other types here without asking first; it cannot send this one,
    nor a header of CloudEvents.
    """
    given = request.headers.getlist("content-type")
    if not given and "ce-specversion" in request.headers:
        return ""  # as some SDKs send JSON
    if len(given) > 1:
        raise ProblemDetails(415, "not-json", "the header content-type stands twice", "send it once")
    whole = email.message.Message()
    whole["content-type"] = given[0] if given else ""
    kind = (given[0] if given else "").partition(";")[0].strip().lower()
    charset = str(whole.get_param("charset", "utf-8")).lower()
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise ProblemDetails(415, "not-utf-8", f"the charset is {charset!r}; JSON is UTF-8", "send it in UTF-8")
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ProblemDetails(
            415, "not-json", f"the content type {kind!r} is not JSON", f"send {CLOUDEVENT}, {BATCH} or application/json"
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemDetails(415, "encoded", "the body is compressed", "send it without a content-encoding")
    return kind


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
