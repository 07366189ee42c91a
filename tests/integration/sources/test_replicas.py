"""What is accepted is on a replica first, where the settings ask for that."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.settings import JournalSettings, RedisSettings, ResumerSettings
from events.errors import TransientError
from events.signal import ResumeSignal
from services.store.connection import AsyncRedis, connect
from services.store.events.journal import STREAM, Appended, Journal
from services.store.runs.dispatch_queues import DispatchQueues
from services.store.signals.signal_record import Mark
from services.store.signals.signals import SignalStore
from tests.support.valkeys import own_valkey
from tests.support.waiting import eventually
from tests.unit.services.store.making import event


async def test_nothing_is_accepted_before_a_replica_holds_it(tmp_path: Path) -> None:
    with own_valkey(tmp_path / "a") as first, own_valkey(tmp_path / "b") as second:
        asking = connect(first.url, RedisSettings(replicas_to_wait_for=1, command_timeout_seconds=3))
        another = connect(first.url, RedisSettings(replicas_to_wait_for=1, command_timeout_seconds=3))
        careless, replica = connect(first.url, RedisSettings()), connect(second.url, RedisSettings())
        await careless.config_set("repl-diskless-sync-delay", 0)
        await replica.replicaof("127.0.0.1", first.port)
        await eventually(lambda: _replicates(replica))

        assert [one.new for one in await _append(asking, "a")] == [True]
        assert await replica.xlen(STREAM) == 1

        second.hang()
        assert [one.new for one in await _append(careless, "lost by a failover")] == [True]
        with pytest.raises(TransientError, match="0 of 1 replicas"):
            await _append(asking, "b")
        with pytest.raises(TransientError, match="0 of 1 replicas"):
            await _append(another, "b")  # a repetition writes nothing new, and is not accepted for that
        with pytest.raises(TransientError, match="0 of 1 replicas"):
            await _submit(asking)
        with pytest.raises(TransientError, match="0 of 1 replicas"):
            await _submit(another)

        with pytest.raises(TransientError, match="0 of 1 replicas"):
            await DispatchQueues(asking).read({"q": ("", 1)})  # nor has Prefect a run of what a failover may lose
        with pytest.raises(TransientError, match="0 of 1 replicas"):
            await _claim(asking)  # nor a run an answer

        second.wake()
        assert [one.new for one in await _append(asking, "b")] == [False]
        assert (await _submit(asking))[0] is False
        assert await DispatchQueues(asking).read({"q": ("", 1)}) == {"q": []}
        assert await _claim(asking)
        assert await replica.xlen(STREAM) == 3
        for client in (asking, another, careless, replica):
            await client.aclose()


async def _append(redis: AsyncRedis, id_: str) -> list[Appended]:
    return await Journal(redis, JournalSettings()).append([event(id_)], received="now")


async def _submit(redis: AsyncRedis) -> tuple[bool, str]:
    signal = ResumeSignal(id="s", key="k", sent=datetime.now(UTC))
    return await SignalStore(redis, ResumerSettings()).submit(signal, origin="test")


async def _claim(redis: AsyncRedis) -> bool:
    store = SignalStore(redis, ResumerSettings())
    (record,) = await store.get_many(["s"])
    async with store.busy("run:r") as busy:
        return await store.claim(record, "r", Mark(wait="w"), busy)


async def _replicates(replica: AsyncRedis) -> bool:
    return bool((await replica.info("replication"))["master_link_status"] == "up")
