"""How many messages a second each source brings into the journal, in one process.

``python -m benchmarks.sources [parse|stream|list|pubsub|http ...] [--events N]``; a Valkey of its own with append-only
persistence on a free port, the listeners of the service, the real journal. Publishing is not timed where the source
can hold what is published (stream, list); over pub/sub and HTTP the publisher shares the processor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.api import ApiSettings
from config.settings import JournalSettings, ListenerSettings, RedisSettings
from config.sources import HttpSource, RedisSource
from events.event import Event, parse_event
from events.untrusted_json import Limits
from services.listeners.http.bodies import BATCH, CLOUDEVENT
from services.listeners.http.listener import HttpListener
from services.listeners.message_intake import event_intake
from services.listeners.redis.source import redis_listeners
from services.local.embedded_servers import claim_port, start_valkey
from services.operations.readiness import Readiness
from services.operations.role import run_loop
from services.store.connection import AsyncRedis, connect
from services.store.dead_letters import DeadLetters
from services.store.events.journal import STREAM, Appended, Journal

LIMITS = Limits()
ORDER = {
    "order_id": 1042,
    "lines": [{"sku": "A-1", "n": 1, "price": 1.5}, {"sku": "B-7", "n": 2, "price": 3.25}],
    "customer": {"name": "Ada", "city": "Köln"},
    "note": 'an order like any other, with "quotes" in it',
}


def message(number: int) -> bytes:
    return json.dumps(
        {
            "specversion": "1.0",
            "id": f"order-{number}",
            "source": "/shop/north",
            "type": "order.created",
            "subject": str(number),
            "time": "2026-01-01T12:00:00Z",
            "data": ORDER,
        }
    ).encode()


class Bench:
    def __init__(self, redis: AsyncRedis, url: str) -> None:
        self.redis = redis
        self.url = url
        self._journal = Journal(redis, JournalSettings())

    def emit_for(self, listener: str) -> Callable[[Sequence[Event]], Awaitable[Sequence[Appended]]]:
        async def emit(events: Sequence[Event]) -> Sequence[Appended]:
            return await self._journal.append(events, received=datetime.now(UTC).isoformat(), listener=listener)

        return emit

    @asynccontextmanager
    async def listening(self, source: RedisSource) -> AsyncIterator[dict[str, Any]]:
        parts = redis_listeners(
            "bench",
            source,
            intake=event_intake(
                listener="redis:bench",
                emit=self.emit_for("redis:bench"),
                dead=DeadLetters(self.redis),
                limits=LIMITS,
                default_type=None,
            ),
            redis=self.redis,
            connect=lambda: connect(self.url, RedisSettings()),
            settings=ListenerSettings(),
        )
        tasks = [asyncio.create_task(part.run()) for part in parts.values()]
        try:
            yield dict(parts)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def journalled(self, count: int) -> None:
        while await self.redis.xlen(STREAM) < count:
            await asyncio.sleep(0.02)


class Watch:
    """The time on the wall and on the processor, from here on."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def tell(self, name: str, count: int) -> None:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        print(f"{name:<28}{count / wall:>10,.0f} /s{cpu / count * 1e6:>10.1f} µs of processor time each")


async def parse(bench: Bench, count: int) -> None:
    del bench
    raw = message(1)
    watch = Watch()
    for _ in range(count):
        parse_event(raw, limits=LIMITS)
    watch.tell(f"parse, {len(raw)} bytes", count)
    event = parse_event(raw, limits=LIMITS)
    watch = Watch()
    for _ in range(count):
        event.to_json()
    watch.tell("write", count)


async def stream(bench: Bench, count: int) -> None:
    async with bench.redis.pipeline(transaction=False) as pipe:
        for number in range(count):
            pipe.xadd("sluice.events", {"event": message(number)})
            if number % 1000 == 999:
                await pipe.execute()
        await pipe.execute()
    watch = Watch()
    async with bench.listening(RedisSource(stream="sluice.events")):
        await bench.journalled(count)
        watch.tell("stream → journal", count)


async def lists(bench: Bench, count: int) -> None:
    for start in range(0, count, 1000):
        await bench.redis.rpush("bench", *(message(number) for number in range(start, min(count, start + 1000))))
    watch = Watch()
    async with bench.listening(RedisSource(list="bench")):
        await bench.journalled(count)
        watch.tell("list → journal", count)


async def pubsub(bench: Bench, count: int) -> None:
    async with bench.listening(RedisSource(channel="sluice.events")) as parts:
        (listener,) = parts.values()
        while listener.status()["state"] != "active":
            await asyncio.sleep(0.01)
        watch = Watch()
        for start in range(0, count, 200):
            async with bench.redis.pipeline(transaction=False) as pipe:
                for number in range(start, min(count, start + 200)):
                    pipe.publish("sluice.events", message(number))
                await pipe.execute()
        await bench.journalled(count)
        watch.tell("pub/sub → journal", count)


async def http(bench: Bench, count: int) -> None:
    listener = HttpListener(
        settings=ApiSettings(),
        port=0,
        limits=LIMITS,
        sources={"bench": HttpSource()},
        emit_for=bench.emit_for,
        submit=_nobody,
        dead=DeadLetters(bench.redis),
        readiness=_ready,
        scrape=_nothing,
    )
    serving = asyncio.create_task(listener.run())
    while listener.port is None:
        await asyncio.sleep(0.01)
    single, together, clients = count // 10, 100, 16
    watch = Watch()
    shares = [range(client, single, clients) for client in range(clients)]
    await asyncio.gather(*(_post(listener.port, CLOUDEVENT, [message(number) for number in share]) for share in shares))
    watch.tell(f"HTTP, {clients} clients", single)
    await _paced(listener.port, range(count, count + single), 2000.0)
    batches = [
        b"[" + b",".join(message(number) for number in range(start, start + together)) + b"]"
        for start in range(single, count, together)
    ]
    watch = Watch()
    await _post(listener.port, BATCH, batches)
    watch.tell(f"HTTP, {together} events a request", len(batches) * together)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def _post(port: int, kind: str, bodies: Sequence[bytes]) -> None:
    """One client on one connection; an HTTP library would cost more than what is measured."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for body in bodies:
        await _exchange(reader, writer, kind, body)
    writer.close()
    await writer.wait_closed()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str, body: bytes) -> None:
    head = f"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 202"), answer
    length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)


async def _paced(port: int, numbers: range, per_second: float, clients: int = 16) -> None:
    """The time from sending to the answer at a steady rate, on several connections."""
    began, times = time.perf_counter(), []

    async def client(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for place in range(first, len(numbers), clients):
            due = began + place / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await _exchange(reader, writer, CLOUDEVENT, message(numbers[place]))
            times.append(time.perf_counter() - due)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client(first) for first in range(clients)))
    times.sort()
    rate = len(times) / (time.perf_counter() - began)
    p50, p99 = (times[int(len(times) * share)] * 1000 for share in (0.5, 0.99))
    print(f"{f'HTTP, at {rate:,.0f} /s':<28}{p50:>10.1f} ms in the middle, {p99:.1f} ms at 99 %")


async def _nobody(signal: object) -> None:
    del signal


async def _ready() -> Readiness:
    return Readiness()


async def _nothing(readiness: Readiness) -> bytes:
    del readiness
    return b""


PARTS: dict[str, Callable[[Bench, int], Awaitable[None]]] = {
    "parse": parse,
    "stream": stream,
    "list": lists,
    "pubsub": pubsub,
    "http": http,
}


async def main(names: Sequence[str], count: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        port = claim_port(0, "a free port")
        server, url = start_valkey(home / "valkey", port, RedisSettings(), log_file=home / "valkey.log")
        redis = connect(url, RedisSettings())
        try:
            for name in names:
                await redis.flushall()
                await PARTS[name](Bench(redis, url), count)
        finally:
            await redis.aclose()
            server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", metavar="PART", help="which; all of them by default")
    parser.add_argument("--events", type=int, default=50_000)
    arguments = parser.parse_args()
    run_loop(main(arguments.parts or list(PARTS), arguments.events))
