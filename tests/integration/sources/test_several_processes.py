"""Several listener processes on one source: one of them is killed or stopped, and another goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import DEVNULL, PIPE
from typing import Any

from config.sources import RedisSource
from services.listeners.redis.stream import GROUP
from services.store.connection import AsyncRedis
from tests.support.sources import Door, cloudevent
from tests.support.waiting import eventually
from tests.support.warm import ModuleProcess, start_module

CHANNEL = RedisSource(channel="sluice.events", type="t")
STREAM = RedisSource(stream="sluice.events", list="test:list", type="t")
SETTINGS = {"lease_seconds": 2.0, "claim_idle_seconds": 2.0}


class Process:
    """`tests.support.listening`, with the status that it reported last."""

    def __init__(self, process: ModuleProcess) -> None:
        self._process = process
        self.status: dict[str, Any] = {}
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout
        while line := await asyncio.to_thread(self._process.stdout.readline):
            self.status = json.loads(line)

    async def is_in(self, state: str) -> bool:
        return any(part.get("state") == state for part in self.status.values())

    async def is_ready(self) -> bool:
        return bool(self.status) and all(part["ready"] for part in self.status.values())

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    async def end(self) -> None:
        if self._process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
            await self._process.ended()
        await self._reading
        self._process.stdout.close()


@asynccontextmanager
async def processes(url: str, source: RedisSource, count: int) -> AsyncIterator[list[Process]]:
    words = ("tests.support.listening", url, "events", source.model_dump_json(), json.dumps(SETTINGS))
    started = [Process(start_module(*words, stdout=PIPE, stderr=DEVNULL)) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            await process.end()


async def active_and_standby(two: list[Process]) -> tuple[Process, Process]:
    await eventually(lambda: _settled(two))
    first, second = two
    return (first, second) if await first.is_in("active") else (second, first)


async def _settled(two: list[Process]) -> bool:
    states = {state for process in two for state in ("active", "standby") if await process.is_in(state)}
    return states == {"active", "standby"}


async def numbers(redis: AsyncRedis) -> list[int]:
    return [event["data"]["n"] for event in await Door(redis).events()]


async def test_another_listener_takes_over_within_five_seconds_of_a_kill(redis: AsyncRedis, valkey_url: str) -> None:
    async with processes(valkey_url, CHANNEL, 2) as two:
        active, standby = await active_and_standby(two)
        assert await redis.publish("sluice.events", b'{"n": 1}') == 1
        await eventually(lambda: _count(redis, 1))
        active.send(signal.SIGKILL)
        await eventually(lambda: standby.is_in("active"), within_seconds=5)
        await eventually(lambda: _published(redis, b'{"n": 2}'), within_seconds=5)
        await eventually(lambda: _count(redis, 2))
    assert sorted(await numbers(redis)) == [1, 2]


async def _count(redis: AsyncRedis, count: int) -> bool:
    return len(await numbers(redis)) >= count


async def _published(redis: AsyncRedis, raw: bytes) -> bool:
    return bool(await redis.publish("sluice.events", raw))


async def test_a_listener_that_was_stopped_for_a_while_repeats_nothing(redis: AsyncRedis, valkey_url: str) -> None:
    """Its connection goes on receiving while it sleeps; what the other one got meanwhile is not its business."""
    async with processes(valkey_url, CHANNEL, 2) as two:
        active, standby = await active_and_standby(two)
        sent = iter(range(1_000_000))
        shared: list[int] = []

        async def publish() -> None:
            while True:
                n = next(sent)
                # Two receivers: the one that sleeps, and the one that has taken over. More than one read takes in.
                if await redis.publish("sluice.events", b'{"n": %d, "x": "%s"}' % (n, b"x" * 5000)) == 2:
                    shared.append(n)
                await asyncio.sleep(0.005)

        publishing = asyncio.create_task(publish())
        await eventually(lambda: _count(redis, 20))
        active.send(signal.SIGSTOP)
        await eventually(lambda: standby.is_in("active"), within_seconds=5)
        await eventually(lambda: _as_many(shared, 100))
        active.send(signal.SIGCONT)
        await eventually(lambda: active.is_in("standby"), within_seconds=5)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        await eventually(lambda: _holds(redis, shared))
        # Not when its turn comes again, either.
        await standby.end()
        await eventually(lambda: active.is_in("active"), within_seconds=10)
        await redis.publish("sluice.events", b'{"n": -1}')
        await eventually(lambda: _holds(redis, [-1]))
        await asyncio.sleep(SETTINGS["lease_seconds"])  # its turn would come within this, and nothing is to happen
    found = await numbers(redis)
    assert len(found) == len(set(found))


async def _as_many(found: list[int], count: int) -> bool:
    return len(found) >= count


async def _holds(redis: AsyncRedis, wanted: list[int]) -> bool:
    return set(wanted) <= set(await numbers(redis))


async def test_messages_with_an_id_survive_even_the_time_between_two_listeners(
    redis: AsyncRedis, valkey_url: str
) -> None:
    """The stopped listener had them in its connection: it journals them when it wakes, since no copy can double."""
    async with processes(valkey_url, CHANNEL, 2) as two:
        active, standby = await active_and_standby(two)
        await redis.publish("sluice.events", cloudevent("before", data={"n": 0}))
        await eventually(lambda: _count(redis, 1))
        active.send(signal.SIGSTOP)
        assert await redis.publish("sluice.events", cloudevent("between", data={"n": 1})) == 1
        await eventually(lambda: standby.is_in("active"), within_seconds=5)
        assert await redis.publish("sluice.events", cloudevent("after", data={"n": 2})) == 2
        active.send(signal.SIGCONT)
        await eventually(lambda: _count(redis, 3))
        await eventually(lambda: active.is_in("standby"), within_seconds=5)
    assert sorted(await numbers(redis)) == [0, 1, 2]


async def test_what_a_killed_process_had_in_hand_is_taken_over_in_time(redis: AsyncRedis, valkey_url: str) -> None:
    await redis.xgroup_create("sluice.events", GROUP, id="0", mkstream=True)
    for n in range(50):
        await redis.xadd("sluice.events", {"event": b'{"n": %d}' % n})
    await redis.xreadgroup(GROUP, "killed", {"sluice.events": ">"}, count=50)
    died = time.monotonic()
    async with processes(valkey_url, STREAM, 1):
        await eventually(lambda: _count(redis, 50), within_seconds=12)
        assert time.monotonic() - died < SETTINGS["claim_idle_seconds"] + 10
    assert sorted(await numbers(redis)) == list(range(50))


async def test_processes_killed_at_random_neither_lose_nor_repeat(redis: AsyncRedis, valkey_url: str) -> None:
    total = 4000
    for n in range(0, total, 2):
        await redis.xadd("sluice.events", {"event": b'{"n": %d}' % n})
        await redis.rpush("test:list", b'{"n": %d}' % (n + 1))
    for round_ in range(1, 5):
        async with processes(valkey_url, STREAM, 2) as two:
            # Killed in the middle of their work, each round a little later in it.
            await eventually(lambda goal=round_ * total // 8: _count(redis, goal))
            for process in two:
                process.send(signal.SIGKILL)
    async with processes(valkey_url, STREAM, 1):
        await eventually(lambda: _count(redis, total))
        await eventually(lambda: _nothing_pending(redis))
    assert sorted(await numbers(redis)) == list(range(total))


async def _nothing_pending(redis: AsyncRedis) -> bool:
    return int((await redis.xpending("sluice.events", GROUP))["pending"]) == 0
