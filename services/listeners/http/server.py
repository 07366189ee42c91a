"""The HTTP server in this process: uvicorn without its signal handlers, and with time-outs for slow senders."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import h11
import structlog
import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from config.api import ApiSettings
from events.errors import ConfigError
from services.common.request_guard import App, Receive, Scope, Send
from services.listeners.http.problem import ProblemDetails, problem_response
from services.listeners.http.tls import ServerTls

_GRACE_SECONDS: Final = 2
_OTHER_FILES: Final = 256
"""Number of files that a role has open beside connections of callers."""

_REFUSED_AT_ONCE: Final = 100
"""Number of connections beyond the limit that get a 503; further ones are closed without a response."""

log = structlog.get_logger()


async def serve(app: App, *, settings: ApiSettings, port: int, listening: Callable[[int], None]) -> None:
    """Serve until cancelled, then answer open requests for up to two seconds.

    ``listening`` is called with the real port. Raises `ConfigError` if the port is taken or the certificate unusable.
    """
    tls = ServerTls(settings) if settings.certificate_file is not None else None
    door = _bind(settings.host, port)
    config = uvicorn.Config(
        app,
        http=_guarded(settings.header_timeout_seconds, _possible(settings.max_connections)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(settings.header_timeout_seconds),
        timeout_graceful_shutdown=_GRACE_SECONDS,
        h11_max_incomplete_event_size=16 * 1024,
    )
    server = _Server(config)
    server.tls = None if tls is None else tls.context
    serving = asyncio.create_task(server.serve(sockets=[door]))
    following = None if tls is None else asyncio.create_task(tls.follow())
    try:
        listening(door.getsockname()[1])
        await asyncio.shield(serving)
    finally:
        if following is not None:
            following.cancel()
        server.should_exit = True
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(serving, _GRACE_SECONDS + 1)
        door.close()


def _possible(connections: int) -> int:
    """Return the number of connections that are possible: each is an open file, which the system limits per process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            log.warning(
                "fewer connections than SLUICE_API__MAX_CONNECTIONS are possible: raise the limit of open files",
                connections=soft - _OTHER_FILES,
                open_files=soft,
            )
            return max(1, soft - _OTHER_FILES)
    return connections


class _Server(uvicorn.Server):
    """Leaves signals to the role's process.

    It has one socket, and a TLS context of its own: a handshake must end within the time limit for headers.
    """

    tls: ssl.SSLContext | None = None

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the sockets as uvicorn does, but with its keep-alive time as the limit of a TLS handshake."""
        if self.tls is None:
            await super().startup(sockets)
            return
        config = self.config
        protocol: Callable[[], asyncio.BaseProtocol] = partial(
            config.http_protocol_class, config=config, server_state=self.server_state, app_state=self.lifespan.state
        )  # type: ignore[call-arg] # uvicorn names any protocol
        create = asyncio.get_running_loop().create_server
        seconds = float(config.timeout_keep_alive)
        self.servers = [
            await create(protocol, sock=door, ssl=self.tls, backlog=config.backlog, ssl_handshake_timeout=seconds)
            for door in sockets or ()
        ]
        self.started = True

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(host: str, port: int) -> socket.socket:
    """Return a bound socket; raises `ConfigError` with the settings of the address if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio switches Nagle's algorithm off only for sockets that it knows to be TCP:
    # otherwise each response waits 40 ms for the client's acknowledgement of its headers.
    door = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
    except OSError as error:
        door.close()
        msg = (
            f"the API cannot listen on {host} port {port} ({error.strerror}): set SLUICE_API__HOST or SLUICE_PORTS__API"
        )
        raise ConfigError(msg) from error
    door.setblocking(False)
    return door


class _Guarded(H11Protocol):
    """Closes a connection whose request line and headers are not complete in time.

    uvicorn closes idle connections only between requests; one that sends a byte now and then would stay open for ever.
    """

    header_timeout_seconds = 10.0
    most_connections = 1000

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self.app = _too_many
        if len(self.connections) > self.most_connections + _REFUSED_AT_ONCE:
            transport.abort()
        self._watch()

    @override
    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with a problem document instead of uvicorn's plain text."""
        said = problem_response(ProblemDetails(400, "not-http", msg, "send a request as RFC 9112 has it"))
        head = [*said.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=400, headers=head, reason=b"Bad Request"),
            h11.Data(data=bytes(said.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unwatch()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.header_timeout_seconds, self._give_up)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def _guarded(header_timeout_seconds: float, most_connections: int) -> type[_Guarded]:
    limits = {"header_timeout_seconds": header_timeout_seconds, "most_connections": most_connections}
    return type("Guarded", (_Guarded,), limits)


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    """The application for connections beyond the limit."""
    said, fix = "there are too many connections", "send it again in a moment"
    problem = ProblemDetails(503, "too-many-connections", said, fix, retry_after_seconds=2)
    await problem_response(problem)(scope, receive, send)
