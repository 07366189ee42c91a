"""The HTTP listener: one address for events, signals, webhooks, listings, health and metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from config.api import ApiSettings
from config.sources import HttpSource
from config.variables import is_loopback
from events.errors import Backpressure, ConfigError, NotFound, Refused, TransientError
from events.signal import ResumeSignal
from events.untrusted_json import Limits
from services.common import metrics
from services.common.lingering_close import LingeringClose
from services.common.request_guard import App, Message, Receive, RequestGuard, Send
from services.common.request_guard import Scope as AsgiScope
from services.common.telemetry import tracing
from services.listeners.http.bodies import read_body
from services.listeners.http.callers import Callers
from services.listeners.http.document import describe, page_of
from services.listeners.http.endpoint_process import PREFIX
from services.listeners.http.endpoints import METHODS, Endpoints
from services.listeners.http.hooks.receiver import Hook, HookReceiver
from services.listeners.http.posting import Emit, Posting
from services.listeners.http.problem import PROBLEMS, ProblemDetails, plain_refusal, problem_of, problem_response
from services.listeners.http.server import serve
from services.operations.readiness import Readiness
from services.store.access.hook_deliveries import HookDeliveries
from services.store.access.tokens import AccessTokens, Limited, Scope
from services.store.dead_letters import DeadLetters
from services.store.signals.signal_record import SignalRecord

log = structlog.get_logger()

_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
_ROUTE: Final = "sluice_route"
"""Key in the ASGI scope of the path of a route that is not FastAPI's, for the metrics."""


class HttpListener:
    """Answers 202 only once the journal holds the event (or the signal is recorded).

    ``emit_for`` returns the function that journals events for a listener's name: ``http``, ``http:NAME`` for a named
    source, ``hooks/NAME`` for a webhook. ``allowed_hosts`` are host names that it accepts beside its own. ``tokens``
    are those of `sluice token`. With ``trusts_own_user``, programs of this process's user on this machine need none
    (where the system tells whose they are). ``endpoints`` are the project's own routes, behind the same guard, token
    and limits; ``routers`` are further ones of ours. ``readiness`` says whether the installation is ready, and why not;
    ``scrape`` makes the metrics' text of it.
    """

    port: int | None = None
    """The port on which it listens; None while it does not."""

    def __init__(
        self,
        *,
        settings: ApiSettings,
        port: int,
        limits: Limits,
        sources: Mapping[str, HttpSource],
        emit_for: Callable[[str], Emit],
        submit: Callable[[ResumeSignal], Awaitable[object]],
        outcome: Callable[[str, float], Awaitable[SignalRecord | None]] | None = None,
        dead: DeadLetters,
        readiness: Callable[[], Awaitable[Readiness]],
        scrape: Callable[[Readiness], Awaitable[bytes]],
        endpoints: Endpoints | None = None,
        hooks: Mapping[str, Hook] | None = None,
        deliveries: HookDeliveries | None = None,
        routers: Sequence[APIRouter] = (),
        tokens: AccessTokens | None = None,
        allowed_hosts: Collection[str] = (),
        trusts_own_user: bool = False,
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._readiness = readiness
        self._scrape = scrape
        self._endpoints = endpoints
        self._routers = routers
        self._allowed_hosts = {*allowed_hosts, settings.host}
        self._callers = Callers(token=settings.token, tokens=tokens, trusts_own_user=trusts_own_user)
        self._port = port
        self._posting = Posting(
            settings=settings,
            limits=limits,
            sources=sources,
            emit_for=emit_for,
            submit=submit,
            outcome=outcome,
            dead=dead,
            callers=self._callers,
        )
        self._hooks = HookReceiver(
            hooks=hooks or {},
            settings=settings,
            limits=limits,
            emit_for=emit_for,
            dead=dead,
            deliveries=deliveries,
            callers=self._callers,
        )

    def status(self) -> Mapping[str, Any]:
        """``ready`` while it listens."""
        return {"ready": self.port is not None, "host": self._settings.host, "port": self.port}

    async def run(self) -> None:
        """Serve until cancelled; open requests are then answered for up to two seconds.

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
        any_address = not is_loopback(self._settings.host)
        # FastAPI takes 25 µs for a request, even one that it does not parse: a quarter of the time to accept an event.
        quick = self._quick_routes()
        way_in = _WayIn(
            self.inner(), Starlette(routes=quick, exception_handlers=_HANDLERS), {route.path for route in quick}
        )
        return LingeringClose(RequestGuard(way_in, names=self._allowed_hosts, any_address=any_address))

    def inner(self) -> FastAPI:
        """Return the application without the guards in front of it."""
        app = FastAPI(
            title="Sluice",
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            redirect_slashes=False,  # a redirect would repeat the Host header of the request
            responses=PROBLEMS,
            exception_handlers=dict(_HANDLERS),
        )
        app.state.callers = self._callers
        app.router.routes += [
            *self._quick_routes(),
            self._route("/events/{source}", "POST", self._posting.events, "publish"),
            self._open("/hooks/{name}", "POST", self._hooks.receive),
            self._open("/health/live", "GET", _live),
            self._open("/health/ready", "GET", self._health),
            self._route("/metrics", "GET", self._metrics, "read"),
            self._open("/openapi.json", "GET", _document),
            self._open("/docs", "GET", _page),
        ]
        if self._endpoints is not None:
            app.router.routes.append(self._route(f"{PREFIX}/{{path:path}}", METHODS, self._endpoint, "publish"))
        for router in self._routers:
            app.include_router(router)
        describe(app)
        return app

    def _quick_routes(self) -> list[Route]:
        return [
            self._route("/events", "POST", self._posting.events, "publish"),
            self._route("/signals", "POST", self._posting.signal, "signal"),
        ]

    def _route(
        self, path: str, methods: str, handler: Callable[[Request, Limited], Awaitable[Response]], scope: Scope
    ) -> Route:
        """Return a route that bypasses FastAPI's parsing, for callers with the scope."""

        async def guarded(request: Request) -> Response:
            return await handler(request, await self._callers.require(request, scope))

        return self._open(path, methods, guarded)

    def _open(self, path: str, methods: str, handler: Callable[[Request], Awaitable[Response]]) -> Route:
        async def endpoint(request: Request) -> Response:
            request.scope[_ROUTE] = path
            tracing.heard(request.headers.get(tracing.TRACEPARENT))
            return await handler(request)

        return Route(path, endpoint, methods=methods.split())

    async def _endpoint(self, request: Request, caller: Limited) -> Response:
        """Return the response of the project's own code."""
        del caller
        assert self._endpoints is not None  # noqa: S101 - else there is no such route
        return await self._endpoints.answer(request, await read_body(request, self._limits.max_bytes, self._settings))

    async def _health(self, request: Request) -> Response:
        found, caller = await self._readiness(), None
        with suppress(TransientError, Backpressure):  # Redis may be the problem
            caller = await self._callers.of(request)
        told = found.as_health(whole=caller is not None and caller.may("read"))
        return JSONResponse(told, status_code=200 if found.ready else 503)

    async def _metrics(self, request: Request, caller: Limited) -> Response:
        del request, caller
        return Response(await self._scrape(await self._readiness()), media_type=_METRICS)


class _WayIn:
    """Routes POST for the ``paths`` to ``quick`` and all else to ``app``, and counts the responses by route."""

    def __init__(self, app: App, quick: App, paths: Collection[str]) -> None:
        self._app = app
        self._quick = quick
        self._paths = paths

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope.get(_ROUTE) or getattr(scope.get("route"), "path", "none")
                metrics.http_answers.labels(path, message["status"]).inc()
            await send(message)

        quick = scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._paths
        await (self._quick if quick else self._app)(scope, receive, sending)


async def _live(request: Request) -> Response:
    del request
    return JSONResponse({"live": True})


async def _document(request: Request) -> Response:
    return JSONResponse(request.app.openapi())


async def _page(request: Request) -> Response:
    return page_of(request.app.openapi())


async def _refusal(request: Request, error: Exception) -> Response:
    if isinstance(error, TransientError | Backpressure | TimeoutError):
        log.warning("request refused for now", path=request.url.path, error=str(error) or "timed out")
    return problem_response(problem_of(error))


async def _fault(request: Request, error: Exception) -> Response:
    """Return the response to a fault of our own, which is logged."""
    log.error("a request could not be answered", path=request.url.path, exc_info=error)
    return problem_response(
        ProblemDetails(
            500, "fault", "a fault of Sluice's own", "see the log of the api role; the same may be sent again"
        )
    )


async def _nobody_reads(request: Request, error: Exception) -> Response:
    del request, error
    return Response(status_code=400)


_HANDLERS: Final[Mapping[Any, Any]] = {
    Exception: _fault,
    HTTPException: plain_refusal,
    ClientDisconnect: _nobody_reads,
    **dict.fromkeys(
        (
            ProblemDetails,
            RequestValidationError,
            Refused,
            NotFound,
            ConfigError,
            TransientError,
            Backpressure,
            TimeoutError,
        ),
        _refusal,
    ),
}
