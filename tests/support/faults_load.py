"""What the fault-injection test publishes, and what became of each message as far as its publisher knows."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import httpx

from events.errors import SluiceError
from services.store.connection import AsyncRedis
from tests.support.confirmed import confirmed
from tests.support.faults import Installation
from tests.support.waiting import eventually

Send = Callable[[int], Awaitable[None]]


class Load:
    """Publishes numbers, each once by its nature or under an id of its own.

    ``sure``: the source took it, so it must arrive. ``unsure``: it may arrive, once: the answer was lost, or it went
    over pub/sub while things broke. ``again`` counts messages with an id that were sent a second time on purpose.
    """

    def __init__(self, installation: Installation, rng: random.Random) -> None:
        self._installation = installation
        self._rng = rng
        self._redis: AsyncRedis = installation.redis
        self._unrepeated: AsyncRedis = installation.unrepeated
        self._next = 0
        self.sure: dict[int, str] = {}
        self.unsure: dict[int, str] = {}
        self.again: Counter[str] = Counter()
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{installation.api_port}", timeout=5)
        self._with_id: dict[str, Send] = {
            "stream": self._to_stream,
            "list": self._to_list,
            "http": self._to_http,
        }

    async def aclose(self) -> None:
        await self._http.aclose()

    async def run(self, *, pause_seconds: float) -> None:
        """Publish until cancelled, on every source in turn at random."""
        sources = {
            self._identified: 6,
            self._plain_stream: 3,
            self._plain_list: 3,
            self._file: 3,
            self._pubsub: 2,
        }
        async with asyncio.TaskGroup() as tasks:
            while True:
                publish = self._rng.choices(list(sources), list(sources.values()))[0]
                tasks.create_task(publish(self._number()))
                await asyncio.sleep(self._rng.uniform(0, 2 * pause_seconds))

    async def calm(self, count: int) -> None:
        """Publish to every source, pub/sub too, while nothing breaks: all of it must arrive."""
        for _ in range(count):
            for publish in (self._identified, self._plain_stream, self._plain_list, self._file):
                await publish(self._number())
            n = self._number()
            channel = self._rng.choice(["plain.north", "plain.south"])
            await eventually(lambda n=n, channel=channel: self._redis.publish(channel, _plain(n)), what="a subscriber")
            self.sure[n] = "pubsub"

    async def one_over_http(self) -> str:
        """Publish an event until HTTP takes it; its id."""
        n = self._number()
        await self._until_taken("http", n)
        self.sure[n] = "http"
        return f"ce-{n}"

    @property
    def last(self) -> int:
        """The number that was published last."""
        return self._next

    def _number(self) -> int:
        self._next += 1
        return self._next

    async def _identified(self, n: int) -> None:
        """Sent until it is taken, and now and then once more over another source: the id makes it one."""
        name = self._rng.choice(list(self._with_id))
        again = self._rng.choice(list(self._with_id)) if self._rng.random() < 0.2 else None
        self.unsure[n] = name  # whoever cancels this may do so behind the sending
        await self._until_taken(name, n)
        self._taken(n, name)
        if again:
            self.again[again] += 1
            await self._until_taken(again, n)

    async def _until_taken(self, name: str, n: int) -> None:
        while True:
            try:
                await self._with_id[name](n)
            except (SluiceError, httpx.HTTPError):
                await asyncio.sleep(self._rng.uniform(0.05, 0.5))
            else:
                return

    async def _to_stream(self, n: int) -> None:
        await confirmed(self._redis, "XADD", "sluice.events", "*", "event", _cloudevent(n))

    async def _to_list(self, n: int) -> None:
        await confirmed(self._redis, "RPUSH", "test:list", _cloudevent(n))

    async def _to_http(self, n: int) -> None:
        headers = {"content-type": "application/cloudevents+json"}
        answer = await self._http.post("/events/hook", content=_cloudevent(n), headers=headers)
        answer.raise_for_status()

    async def _plain_stream(self, n: int) -> None:
        await self._once(
            n, "stream, plain", lambda: confirmed(self._unrepeated, "XADD", "test:plain", "*", "event", _plain(n))
        )

    async def _plain_list(self, n: int) -> None:
        await self._once(n, "list, plain", lambda: confirmed(self._unrepeated, "RPUSH", "test:list", _plain(n)))

    async def _once(self, n: int, name: str, send: Callable[[], Awaitable[object]]) -> None:
        """Sent once: where the answer is lost nobody knows whether it was taken, and a repeat would be another one."""
        self.unsure[n] = name
        with suppress(SluiceError):
            await send()
            self._taken(n, name)

    async def _pubsub(self, n: int) -> None:
        self.unsure[n] = "pubsub"
        try:
            if self._rng.random() < 0.5:
                await self._redis.publish("sluice.events", _cloudevent(n))
            else:
                await self._unrepeated.publish("plain.any", _plain(n))
        except SluiceError:
            return

    async def _file(self, n: int) -> None:
        self.unsure[n] = "files"
        await asyncio.to_thread(_write, self._installation.inbox, n)
        self._taken(n, "files")

    def _taken(self, n: int, name: str) -> None:
        self.sure[n] = name
        del self.unsure[n]


def _write(inbox: Path, n: int) -> None:
    draft = inbox / f".{n}.tmp"
    draft.write_text(f"{n}\n")
    draft.replace(inbox / f"{n}.txt")


def _plain(n: int) -> bytes:
    return b'{"n": %d}' % n


def _cloudevent(n: int) -> bytes:
    event = {"specversion": "1.0", "id": f"ce-{n}", "source": "faults", "type": "fault.happened", "data": {"n": n}}
    return json.dumps(event).encode()
