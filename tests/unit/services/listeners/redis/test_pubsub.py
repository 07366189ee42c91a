"""The pub/sub listener on a real Valkey, with the real journal behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from typing_extensions import override

from config.settings import ListenerSettings, RedisSettings
from events.errors import Backpressure, TransientError
from services.listeners.redis.pubsub import PubSubListener
from services.store.connection import AsyncRedis, connect
from services.store.lease import Lease
from tests.support.sources import QUICK, Door, Letters, cloudevent, intake, running
from tests.support.valkeys import own_valkey
from tests.support.waiting import eventually


def listener(
    redis: AsyncRedis,
    url: str,
    door: Door,
    letters: Letters,
    *,
    channel: str = "sluice.events",
    pattern: bool = False,
    type_: str | None = None,
    settings: ListenerSettings = QUICK,
    lease: Lease | None = None,
) -> PubSubListener:
    taking = intake(door, letters, type_=type_)
    return PubSubListener(
        listener="redis:test",
        connect=lambda: connect(url, RedisSettings()),
        lease=lease or Lease(redis, "pubsub:test", ttl_seconds=settings.lease_seconds),
        channel=channel,
        pattern=pattern,
        sink=taking.accept,
        identified=taking.identifies,
        settings=settings,
    )


async def _state(part: PubSubListener, state: str) -> bool:
    return part.status()["state"] == state


async def _as_many(door: Door, count: int) -> bool:
    return len(await door.ids()) >= count


async def test_a_published_message_becomes_an_event(redis: AsyncRedis, valkey_url: str) -> None:
    door = Door(redis)
    part = listener(redis, valkey_url, door, Letters())
    async with running(part):
        await eventually(lambda: _state(part, "active"))
        assert await redis.publish("sluice.events", cloudevent("a")) == 1
        await eventually(door.ids)
    assert await door.ids() == ["a"]


async def test_a_pattern_hears_every_channel_that_it_matches(redis: AsyncRedis, valkey_url: str) -> None:
    door = Door(redis)
    part = listener(redis, valkey_url, door, Letters(), channel="orders.*", pattern=True, type_="order.message")
    async with running(part):
        await eventually(lambda: _state(part, "active"))
        await redis.publish("orders.north", b'{"n": 1}')
        await redis.publish("elsewhere", b'{"n": 0}')
        await redis.publish("orders.south", b'{"n": 2}')
        await eventually(lambda: _as_many(door, 2))
    assert [event["data"] for event in await door.events()] == [{"n": 1}, {"n": 2}]


async def test_equal_messages_are_different_events(redis: AsyncRedis, valkey_url: str) -> None:
    door = Door(redis)
    part = listener(redis, valkey_url, door, Letters(), type_="t")
    async with running(part):
        await eventually(lambda: _state(part, "active"))
        await redis.publish("sluice.events", b'{"n": 1}')
        await redis.publish("sluice.events", b'{"n": 1}')
        await eventually(lambda: _as_many(door, 2))
    assert len(set(await door.ids())) == 2


async def test_what_was_received_waits_in_memory_until_the_journal_takes_it(redis: AsyncRedis, valkey_url: str) -> None:
    door = Door(redis)
    door.troubles = [TransientError("not now")] * 3 + [Backpressure("full")] * 3
    part = listener(redis, valkey_url, door, Letters(), type_="t")
    async with running(part):
        await eventually(lambda: _state(part, "active"))
        for number in range(250):
            await redis.publish("sluice.events", b'{"n": %d}' % number)
        await eventually(lambda: _as_many(door, 250))
    assert [event["data"]["n"] for event in await door.events()] == list(range(250))


async def test_a_lost_connection_is_subscribed_again(redis: AsyncRedis, valkey_url: str) -> None:
    door = Door(redis)
    part = listener(redis, valkey_url, door, Letters())
    async with running(part):
        await eventually(lambda: _state(part, "active"))
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await eventually(lambda: _heard(redis, "again"))
        await eventually(door.ids)
    assert set(await door.ids()) == {"again"}


async def _heard(redis: AsyncRedis, id_: str) -> bool:
    return bool(await redis.publish("sluice.events", cloudevent(id_)))


async def test_one_of_two_listens_and_the_other_takes_over_when_it_stops(redis: AsyncRedis, valkey_url: str) -> None:
    door = Door(redis)
    first = listener(redis, valkey_url, door, Letters(), type_="t")
    second = listener(redis, valkey_url, door, Letters(), type_="t")
    async with running(second):
        await eventually(lambda: _state(second, "active"))
        async with running(first):
            await eventually(lambda: _state(first, "standby"))
            assert await redis.publish("sluice.events", b'{"n": 1}') == 1
            await eventually(lambda: _as_many(door, 1))
    async with running(first):
        await eventually(lambda: _state(first, "active"), within_seconds=5)
        assert await redis.publish("sluice.events", b'{"n": 2}') == 1
        await eventually(lambda: _as_many(door, 2))
    assert [event["data"]["n"] for event in await door.events()] == [1, 2]


async def test_a_stop_hands_on_what_was_received(redis: AsyncRedis, valkey_url: str) -> None:
    door = Door(redis)
    door.open.clear()
    part = listener(redis, valkey_url, door, Letters(), type_="t")
    async with running(part):
        await eventually(lambda: _state(part, "active"))
        for number in range(20):
            await redis.publish("sluice.events", b'{"n": %d}' % number)
        await eventually(lambda: _called(door))
        door.open.set()
    assert [event["data"]["n"] for event in await door.events()] == list(range(20))


async def _called(door: Door) -> bool:
    return door.calls > 0


async def test_a_message_that_is_not_json_is_kept_and_the_next_one_handled(redis: AsyncRedis, valkey_url: str) -> None:
    door, letters = Door(redis), Letters()
    part = listener(redis, valkey_url, door, letters)
    async with running(part):
        await eventually(lambda: _state(part, "active"))
        await redis.publish("sluice.events", b"\x00\xff")
        await redis.publish("sluice.events", cloudevent("next"))
        await eventually(door.ids)
    assert letters.raws == [b"\x00\xff"]


class SlowLease(Lease):
    """A lease whose renewal is answered by the server at once, and heard of when the test allows it."""

    def __init__(self, redis: AsyncRedis, *, ttl_seconds: float) -> None:
        super().__init__(redis, "pubsub:test", ttl_seconds=ttl_seconds)
        self.heard = asyncio.Event()
        self.heard.set()
        self.held_back = asyncio.Event()

    @override
    async def renew(self) -> bool:
        ours = await super().renew()
        if not self.heard.is_set():
            self.held_back.set()
            await self.heard.wait()
        return ours


async def test_a_renewal_says_nothing_about_messages_that_came_after_it(redis: AsyncRedis, valkey_url: str) -> None:
    """The process stood still between the server's answer and reading it, and another has taken over meanwhile."""
    door = Door(redis)
    lease = SlowLease(redis, ttl_seconds=0.5)
    part = listener(redis, valkey_url, door, Letters(), type_="t", lease=lease)
    successor = Lease(redis, "pubsub:test", ttl_seconds=60)
    async with running(part):
        await eventually(lambda: _state(part, "active"))
        lease.heard.clear()
        await lease.held_back.wait()
        await eventually(successor.acquire)
        assert await redis.publish("sluice.events", b'{"n": 1}') == 1
        await eventually(lambda: _doubts(part))
        lease.heard.set()
        await eventually(lambda: _state(part, "standby"))
    assert await door.ids() == []


async def _doubts(part: PubSubListener) -> bool:
    return bool(part._doubtful)


async def test_a_message_that_came_in_doubt_is_kept_once_the_lease_is_known_to_be_ours(
    redis: AsyncRedis, valkey_url: str
) -> None:
    door = Door(redis)
    lease = SlowLease(redis, ttl_seconds=0.5)
    part = listener(redis, valkey_url, door, Letters(), type_="t", lease=lease)
    async with running(part):
        await eventually(lambda: _state(part, "active"))
        lease.heard.clear()
        await lease.held_back.wait()
        await eventually(lambda: _uncertain(lease))
        assert await redis.publish("sluice.events", b'{"n": 1}') == 1
        await eventually(lambda: _doubts(part))
        lease.heard.set()
        await eventually(lambda: _as_many(door, 1))


async def _uncertain(lease: Lease) -> bool:
    return not lease.certain


async def test_a_lease_of_a_primary_that_has_lost_its_replica_is_in_doubt(tmp_path: Path) -> None:
    """After a failover that it has not heard of: its messages come from the new primary, which has another listener."""
    with own_valkey(tmp_path / "old") as old, own_valkey(tmp_path / "new") as new:
        settings = RedisSettings(replicas_to_wait_for=1, command_timeout_seconds=3)
        client, publisher = connect(old.url, settings), connect(new.url, RedisSettings())
        door = Door(client)
        lease = Lease(client, "pubsub:test", ttl_seconds=QUICK.lease_seconds, confirmed=True)
        part = listener(client, new.url, door, Letters(), type_="t", lease=lease)
        async with running(part):
            await eventually(lambda: _state(part, "active"))
            assert await publisher.publish("sluice.events", b'{"n": 1}') == 1
            await eventually(lambda: _doubts(part))
            await publisher.replicaof("127.0.0.1", old.port)  # there was no failover after all
            await eventually(lambda: _as_many(door, 1))
        assert [event["data"]["n"] for event in await door.events()] == [1]
        await client.aclose()
        await publisher.aclose()
