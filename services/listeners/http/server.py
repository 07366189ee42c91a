"""The HTTP server in this process: uvicorn without its signal handlers, and with an end for slow senders."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from config.settings import ApiSettings
from events.errors import ConfigError
from services.common.request_guard import App

_GRACE_SECONDS = 2


async def serve(app: App, *, settings: ApiSettings, port: int, listening: Callable[[int], None]) -> None:
    """Serve until cancelled, then answer what is in hand for up to two seconds.

    ``listening`` is told the real port. Raises `ConfigError` if the port cannot be had.
    """
    door = _bind(settings.host, port)
    config = uvicorn.Config(
        app,
        http=_guarded(settings.header_timeout_seconds),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=int(settings.header_timeout_seconds),
        timeout_graceful_shutdown=_GRACE_SECONDS,
        h11_max_incomplete_event_size=16 * 1024,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[door]))
    try:
        listening(door.getsockname()[1])
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(serving, _GRACE_SECONDS + 1)
        door.close()


class _Server(uvicorn.Server):
    """Signals belong to the role's process, not to one of its parts."""

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio switches Nagle's delay off only where it sees that it is TCP: without it
    # each answer waits 40 ms for the client's acknowledgement of its headers.
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
    """Ends a connection whose request line and headers are not complete in time.

    uvicorn ends idle connections between requests only; one that sends a byte now and then would stay for ever.
    """

    header_timeout_seconds = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._watch()

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


def _guarded(header_timeout_seconds: float) -> type[_Guarded]:
    return type("Guarded", (_Guarded,), {"header_timeout_seconds": header_timeout_seconds})
