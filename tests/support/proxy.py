"""A TCP proxy on loopback that delays, cuts, half-closes and swallows, and that can put TLS in front of a server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

DIAL_SECONDS = 2.0
"""How long the target may take to take a connection: a host without a cable says nothing."""


class Proxy:
    """Forwards to ``target``, a port here or an address; what it does to the connections can be changed at any time."""

    def __init__(
        self, target: int | tuple[str, int], *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        self._target = ("127.0.0.1", target) if isinstance(target, int) else target
        self._host = host
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._serving: set[asyncio.Task[None] | None] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._ended = False
        self.port = 0
        self.delay_seconds = 0.0
        """How long each piece of data waits, in either direction."""
        self.bytes_per_second: float | None = None
        """Of each connection, in each direction."""
        self.refusing = False
        """Whether new connections end at once."""
        self.connections = 0
        """How many there have been."""
        self.heard: list[bytes] = []
        """What the clients sent, piece by piece."""
        self.instead: list[tuple[bytes, bytes]] = []
        """What a request begins with, and what is answered in the server's place; each once."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._ended = True
        loop = asyncio.get_running_loop()
        for listening in self._server.sockets:
            loop.remove_reader(listening.fileno())  # a server that is closed leaves what it has just accepted open
        for _ in range(3):  # a connection that has just been accepted is served two turns of the loop later
            self.cut()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*(task for task in self._serving if task), return_exceptions=True)
            await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn of the loop
        self._server.close()

    def cut(self) -> int:
        """Reset every connection, as a network that breaks; answers how many."""
        pairs, self._pairs = self._pairs, set()
        for client, server in pairs:
            for writer in (client, server):
                sock = writer.get_extra_info("socket")
                if sock is not None:  # on uvloop, a closed one has none
                    with contextlib.suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
        return len(pairs)

    def half_close(self) -> None:
        """Tell every client that its server has ended its side; what the client sends still arrives."""
        for client, _ in self._pairs:
            with contextlib.suppress(OSError, RuntimeError):
                client.write_eof()

    def swallow(self) -> None:
        """Keep connections open and pass nothing on: the peer is gone and nobody says so."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass on again, beginning with what was swallowed."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._serving.add(task)
        try:
            await self._connect(reader, writer)
        finally:
            self._serving.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refusing or self._ended:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await self._dial()
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        if self._ended:
            for end in pair:
                end.transport.abort()
            return
        self._pairs.add(pair)
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer, writer)),
            asyncio.create_task(self._pump(far_reader, writer)),
        ]
        self._tasks.update(pumps)
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)  # one end was reset: so is the other
        finally:
            self._pairs.discard(pair)
            for end in pair:
                end.transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._tasks.difference_update(pumps)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the target; raises OSError."""
        return await asyncio.wait_for(asyncio.open_connection(*self._target), DIAL_SECONDS)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: asyncio.StreamWriter | None = None
    ) -> None:
        """Until the end; raises OSError or RuntimeError when an end is reset."""
        while data := await reader.read(65536):
            if client is not None:
                self.heard.append(data)
                answer = next((known for known in self.instead if data.startswith(known[0])), None)
                if answer is not None:
                    self.instead.remove(answer)
                    client.write(answer[1])
                    continue
            seconds = self.delay_seconds + (len(data) / self.bytes_per_second if self.bytes_per_second else 0)
            if seconds:
                await asyncio.sleep(seconds)
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        await self._flowing.wait()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()


@asynccontextmanager
async def in_front_of(url: str, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy in front of the server at ``url``, and the URL through it."""
    scheme, _, rest = url.partition("://")
    place, _, path = rest.partition("/")
    credentials, at, address = place.rpartition("@")
    async with Proxy(int(address.rpartition(":")[2]), tls=tls) as proxy:
        host = "localhost" if tls else "127.0.0.1"
        yield proxy, f"{'rediss' if tls else scheme}://{credentials}{at}{host}:{proxy.port}/{path}"
