"""Connections to Redis end with the task that uses them, and with their client."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from urllib.parse import urlsplit

import pytest
import uvloop
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from config.settings import RedisSettings
from events.errors import TransientError
from services.store.connection import AsyncRedis, connect
from tests.support import open_connections
from tests.support.proxy import Proxy
from tests.support.waiting import eventually


async def test_a_task_in_a_loop_of_commands_ends_at_the_first_cancellation(redis: AsyncRedis) -> None:
    async def publish() -> None:
        while True:
            await redis.publish("test:channel", "x")

    for _ in range(100):
        task = asyncio.create_task(publish())
        await asyncio.sleep(random.uniform(0.0005, 0.003))
        task.cancel()
        _, late = await asyncio.wait({task}, timeout=1)
        if late:
            task.cancel()
        assert not late


async def test_a_connection_is_as_good_as_new_after_a_cancellation(redis: AsyncRedis) -> None:
    for number in range(100):
        asking = asyncio.create_task(redis.set("test:key", number))
        await asyncio.sleep(random.uniform(0, 0.0005))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await redis.echo(f"answer {number}") == f"answer {number}".encode()


async def test_a_task_whose_sending_fails_just_as_it_is_cancelled_ends(
    redis: AsyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await redis.ping()

    async def ping() -> None:
        while True:
            await redis.ping()

    task = asyncio.create_task(ping())
    told = False

    async def fail(self: AbstractConnection, command: Iterable[bytes]) -> None:
        nonlocal told
        if not told:
            told = True
            task.cancel()
            raise ConnectionResetError("Connection lost")
        await honest(self, command)

    honest = AbstractConnection._send_packed_command
    monkeypatch.setattr(AbstractConnection, "_send_packed_command", fail)
    _, late = await asyncio.wait({task}, timeout=2)
    task.cancel()
    assert not late


def test_a_command_on_a_connection_that_was_reset_is_sent_again_on_the_loop_of_the_roles(valkey_url: str) -> None:
    """uvloop says of such a connection what asyncio's loop does not: a `RuntimeError`."""

    async def work() -> None:
        async with (
            Proxy(urlsplit(valkey_url).port or 0) as proxy,
            connect(f"redis://127.0.0.1:{proxy.port}/0", RedisSettings()) as client,
        ):
            commands = [client.client(), client]
            for one in commands:
                await one.ping()
            subscriber = client.pubsub()
            await subscriber.subscribe("test:channel")
            held = await client.connection_pool.get_connection()
            await held.send_command("PING")
            await held.read_response()
            assert proxy.cut()
            await asyncio.sleep(0.05)  # the loop hears of it
            with pytest.raises((RedisError, OSError)):
                await held.send_command("PING")
            for one in commands:
                assert await one.ping()
            await subscriber.subscribe("test:other")
            await subscriber.aclose()
            await commands[0].aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


async def test_a_client_has_as_many_connections_as_it_has_callers(valkey_url: str) -> None:
    """redis-py refuses the hundred and first caller unless it is told."""
    async with connect(valkey_url, RedisSettings()) as client:
        answers = await asyncio.gather(*(client.blpop([f"test:nothing:{n}"], timeout=0.2) for n in range(150)))
    assert answers == [None] * 150


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_nothing_is_left_open_where_a_client_is_closed_as_it_connects(valkey_url: str, turns: int) -> None:
    client = connect(valkey_url, RedisSettings())
    asking = asyncio.create_task(client.ping())
    for _ in range(turns):
        await asyncio.sleep(0)
    await client.aclose()
    await asyncio.gather(asking, return_exceptions=True)
    assert not open_connections.left_open()


async def test_nothing_is_left_open_where_a_client_is_closed_under_a_command(valkey_url: str) -> None:
    client = connect(valkey_url, RedisSettings())
    asking = asyncio.create_task(client.blpop(["test:nothing"], timeout=60))
    async with connect(valkey_url, RedisSettings()) as watching:

        async def blocked() -> bool:
            return any(one["cmd"] == "blpop" for one in await watching.client_list())

        await eventually(blocked)
    await client.aclose()
    with pytest.raises(TransientError, match="the client is closed"):
        await asking
    assert not open_connections.left_open()


async def test_a_closed_client_does_not_connect_again(valkey_url: str) -> None:
    client = connect(valkey_url, RedisSettings())
    assert await client.ping()
    await client.aclose()
    with pytest.raises(TransientError, match="the client is closed"):
        await client.ping()
    assert not open_connections.left_open()
