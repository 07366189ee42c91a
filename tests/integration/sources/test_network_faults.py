"""Listeners behind a network that delays, cuts, half-closes and swallows, and a server that dies and comes back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from config.settings import ListenerSettings, RedisSettings
from config.sources import RedisSource
from events.errors import TransientError
from services.listeners.redis.source import RedisListener, redis_listeners
from services.store.connection import AsyncRedis, connect
from services.store.redis_errors import translated
from tests.support.proxy import Proxy, in_front_of
from tests.support.sources import QUICK, Door, Letters, cloudevent, intake, running
from tests.support.valkeys import own_valkey
from tests.support.waiting import eventually

SHORT = RedisSettings(connect_timeout_seconds=1, command_timeout_seconds=3)
ALL = RedisSource(channel="sluice.events", stream="sluice.events", list="test:list", type="t")


def parts(
    redis: AsyncRedis, door: Door, url: str, *, source: RedisSource = ALL, settings: ListenerSettings = QUICK
) -> dict[str, RedisListener]:
    return redis_listeners(
        "events",
        source,
        intake=intake(door, Letters(), type_="t"),
        redis=redis,
        connect=lambda: connect(url, SHORT),
        settings=settings,
    )


async def all_ready(listeners: dict[str, RedisListener]) -> bool:
    return all(part.status()["ready"] and "degraded" not in part.status() for part in listeners.values())


async def numbers(redis: AsyncRedis) -> list[int]:
    return sorted(event["data"]["n"] for event in await Door(redis).events())


async def cut(proxy: Proxy) -> None:
    proxy.cut()


async def half_close(proxy: Proxy) -> None:
    proxy.half_close()


async def delay(proxy: Proxy) -> None:
    proxy.delay_seconds = 0.05


async def refuse_for_a_while(proxy: Proxy) -> None:
    proxy.refusing = True
    proxy.cut()
    await asyncio.sleep(0.5)  # how long the fault lasts
    proxy.refusing = False


async def swallow_for_a_while(proxy: Proxy) -> None:
    proxy.swallow()
    await asyncio.sleep(0.5)  # how long the fault lasts
    proxy.flow()


@pytest.mark.parametrize("fault", [cut, half_close, delay, refuse_for_a_while, swallow_for_a_while])
async def test_plain_messages_of_streams_and_lists_arrive_once_through_a_fault(
    redis: AsyncRedis, valkey_url: str, fault: Callable[[Proxy], Awaitable[None]]
) -> None:
    """The messages bring no id: whatever is delivered again must be known by its place."""
    async with in_front_of(valkey_url) as (proxy, url):
        through = connect(url, SHORT)
        door = Door(through)
        listeners = parts(through, door, url)
        async with running(*listeners.values()):
            await eventually(lambda: all_ready(listeners))
            for n in range(0, 400, 4):
                await redis.xadd("sluice.events", {"event": b'{"n": %d}' % n})
                await redis.xadd("sluice.events", {"event": b'{"n": %d}' % (n + 1)})
                await redis.rpush("test:list", b'{"n": %d}' % (n + 2), b'{"n": %d}' % (n + 3))
                if n % 100 == 40:
                    await fault(proxy)
            await eventually(lambda: _as_many(redis, 400))
            proxy.delay_seconds = 0
        await through.aclose()
    assert await numbers(redis) == list(range(400))


async def _as_many(redis: AsyncRedis, count: int) -> bool:
    return len(await numbers(redis)) >= count


async def test_a_connection_on_which_nobody_answers_is_given_up(redis: AsyncRedis, valkey_url: str) -> None:
    async with in_front_of(valkey_url) as (proxy, url):
        through = connect(url, SHORT)
        listeners = parts(through, Door(through), url)
        async with running(*listeners.values()):
            await eventually(lambda: all_ready(listeners))
            proxy.swallow()
            await eventually(lambda: _degraded(listeners))
            # The old connections stay dead; only new ones come through.
            proxy.flow()
            proxy.cut()
            await redis.xadd("sluice.events", {"event": b'{"n": 1}'})
            await eventually(lambda: _as_many(redis, 1))
            await eventually(lambda: all_ready(listeners))
        await through.aclose()


async def _degraded(listeners: dict[str, RedisListener]) -> bool:
    return all("degraded" in part.status() for part in listeners.values())


async def test_a_subscription_on_which_nobody_answers_is_made_again(redis: AsyncRedis, valkey_url: str) -> None:
    """Only the subscription's connection is dead; a channel without messages looks just the same."""
    async with in_front_of(valkey_url) as (proxy, url):
        listeners = parts(redis, Door(redis), url, source=RedisSource(channel="sluice.events", type="t"))
        (listener,) = listeners.values()
        async with running(listener):
            await eventually(lambda: _active(listener))
            proxy.swallow()
            await eventually(lambda: _says(listener, "silent"))
            proxy.flow()
            await eventually(lambda: _published(redis))
            await eventually(lambda: _as_many(redis, 1))


async def _published(redis: AsyncRedis) -> bool:
    return bool(await redis.publish("sluice.events", b'{"n": 1}'))


async def test_messages_received_before_a_cut_are_journalled_after_it(redis: AsyncRedis, valkey_url: str) -> None:
    """The journal is out of reach while the channel still works: what came is kept in memory."""
    async with in_front_of(valkey_url) as (proxy, url):
        journal = connect(url, SHORT)
        door = Door(journal)
        listeners = parts(redis, door, valkey_url, source=RedisSource(channel="sluice.events", type="t"))
        (listener,) = listeners.values()
        async with running(listener):
            await eventually(lambda: _active(listener))
            await journal.ping()
            proxy.refusing = True
            proxy.cut()
            for n in range(300):
                await redis.publish("sluice.events", b'{"n": %d}' % n)
            await eventually(lambda: _buffered(listener, 300))
            proxy.refusing = False
            await eventually(lambda: _as_many(redis, 300))
        await journal.aclose()
    assert await numbers(redis) == list(range(300))


async def _active(listener: RedisListener) -> bool:
    return listener.status()["state"] == "active"


async def _buffered(listener: RedisListener, count: int) -> bool:
    return int(listener.status()["buffered"]) >= count


async def test_a_full_buffer_stops_the_reading_and_says_so(redis: AsyncRedis, valkey_url: str) -> None:
    small = QUICK.model_copy(update={"buffer_bytes": 1024 * 1024})
    door = Door(redis)
    door.open.clear()
    listeners = parts(redis, door, valkey_url, source=RedisSource(channel="sluice.events", type="t"), settings=small)
    (listener,) = listeners.values()
    async with running(listener):
        await eventually(lambda: _active(listener))
        body = b'{"n": %d, "x": "' + b"x" * 100_000 + b'"}'
        for n in range(30):
            await redis.publish("sluice.events", body % n)
        await eventually(lambda: _says(listener, "is full"))
        assert int(listener.status()["buffered"]) < 15
        door.open.set()
        await eventually(lambda: _as_many(redis, 30))
    assert await numbers(redis) == list(range(30))


async def _says(listener: RedisListener, words: str) -> bool:
    return words in listener.status().get("degraded", "")


async def test_a_killed_valkey_that_comes_back_has_everything_that_was_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(7)
    with own_valkey(tmp_path) as valkey:
        redis = connect(valkey.url, SHORT)
        publisher = connect(valkey.url, SHORT)
        listeners = parts(redis, Door(redis), valkey.url)
        accepted: set[int] = set()
        tried = iter(range(10_000))

        async def publish(count: int) -> None:
            for n in (next(tried) for _ in range(count)):
                message = cloudevent(f"e{n}", data={"n": n})
                try:
                    with translated():
                        if n % 2:
                            await publisher.xadd("sluice.events", {"event": message})
                        else:
                            await publisher.rpush("test:list", message)
                except TransientError:
                    return
                accepted.add(n)

        async with running(*listeners.values()):
            for _ in range(3):
                publishing = asyncio.create_task(publish(150))
                await asyncio.sleep(rng.uniform(0.0, 0.1))
                valkey.kill()
                await publishing
                valkey.start()
                await publish(20)
            await eventually(lambda: _holds(publisher, accepted))
        found = await numbers(publisher)
        assert len(found) == len(set(found))
        await redis.aclose()
        await publisher.aclose()


async def _holds(redis: AsyncRedis, accepted: set[int]) -> bool:
    return accepted <= set(await numbers(redis))


async def test_a_full_valkey_holds_entries_until_there_is_room(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as valkey:
        redis = connect(valkey.url, SHORT)
        door = Door(redis)
        for n in range(200):
            await redis.xadd("sluice.events", {"event": b'{"n": %d, "x": "%s"}' % (n, b"x" * 1000)})
            await redis.rpush("test:list", b'{"n": %d, "x": "%s"}' % (200 + n, b"x" * 1000))
        listeners = parts(redis, door, valkey.url)
        await redis.xgroup_create("sluice.events", "sluice", id="0")
        used = int((await redis.info("memory"))["used_memory"])
        await redis.config_set("maxmemory", used)
        async with running(*listeners.values()):
            await eventually(lambda: _any_says(listeners, "maxmemory"))
            await redis.config_set("maxmemory", 0)
            await eventually(lambda: _as_many(redis, 400))
            await eventually(lambda: all_ready(listeners))
        assert await numbers(redis) == list(range(400))
        await redis.aclose()


async def _any_says(listeners: dict[str, RedisListener], words: str) -> bool:
    return any([await _says(listener, words) for listener in listeners.values()])
