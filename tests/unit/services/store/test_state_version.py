"""The state of each released version is read by this one, and that of a newer one is left alone."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
import redis as redis_py

from config.settings import FileSettings, HistorySettings, JournalSettings, RedisSettings
from events.errors import ConfigError
from services.operations.upkeep.inspector import declared_keys
from services.store.access.tokens import AccessTokens
from services.store.connection import AsyncRedis, connect, connect_sync
from services.store.dead_letters import DeadLetters, LetterQuery
from services.store.events.history import History, Query
from services.store.events.journal import Journal
from services.store.files.ledger import Ledger
from services.store.inspection.key_inspection import KeyInspection
from services.store.keys import KeyList
from services.store.signals.signal_queries import SignalQueries
from services.store.signals.waits import Waits
from services.store.state.installation import claim_state
from services.store.state_version import KEY, STATE_VERSION
from services.store.unreadable import noted
from tests.support.state_samples import put, taken
from tests.support.warm import run_module

SAMPLES = sorted((Path(__file__).parent / "state" / "samples").glob("state-*.json"))


def test_there_is_a_sample_of_every_version() -> None:
    assert [path.stem for path in SAMPLES] == [f"state-{number + 1}" for number in range(STATE_VERSION)]


@pytest.mark.parametrize("sample", SAMPLES, ids=[path.stem for path in SAMPLES])
async def test_the_state_of_a_released_version_is_read(redis: AsyncRedis, valkey_url: str, sample: Path) -> None:
    """Two orders, one of them answered; two files; an event without a rule; a buffered signal; no JSON."""
    with connect_sync(valkey_url, RedisSettings()) as client:
        put(client, json.loads(await asyncio.to_thread(sample.read_text)))
    await claim_state(redis)
    inspection = KeyInspection(redis, KeyList(key for keys in declared_keys().values() for key in keys))
    assert await inspection.everything() == 0, "nothing is set aside"
    histories = await History(redis, HistorySettings()).search(Query(), limit=100)
    events = [one.event or {} for one in histories]
    assert sorted(str(one.get("subject") or one["id"]) for one in events) == [
        "notes.txt", "order-1042", "order-1043", "weather-1", "weather.csv"
    ]  # fmt: skip
    assert sorted(rule for one in histories for rule in one.matched) == [
        "ingest-file", "ingest-file", "start-order", "start-order"
    ]  # fmt: skip
    assert sum(len(one.runs) for one in histories) == 4
    depth = await Journal(redis, JournalSettings()).depth()
    assert (depth.entries, depth.unread, depth.pending) == (5, 0, 0)
    (letter,) = await DeadLetters(redis).search(LetterQuery(), limit=10)
    assert letter.reason
    waits = Waits(redis)
    assert await waits.count() == 1
    assert len(await waits.memos_for("order-1042")) == 1
    records = await SignalQueries(redis).newest(limit=10)
    assert sorted((str(record.signal.key), record.status) for record in records) == [
        ("order-1043", "applied"), ("order-9", "buffered")
    ]  # fmt: skip
    (token,) = await AccessTokens(redis).all()
    assert (token.name, token.scopes) == ("shop", ("publish",))
    assert await Ledger(redis, JournalSettings(), FileSettings()).size("inbox") == 2


async def test_the_state_of_a_newer_program_is_refused_and_left_alone(
    redis: AsyncRedis, valkey_url: str, checkout: Path, tmp_path: Path
) -> None:
    await claim_state(redis)
    assert await redis.get(KEY) == b"%d" % STATE_VERSION
    await redis.set(KEY, STATE_VERSION + 1)
    with pytest.raises(ConfigError, match="newer Sluice"):
        await claim_state(redis)
    with redis_py.Redis.from_url(valkey_url) as client:
        before = taken(client)
        env = {**os.environ, "SLUICE_REDIS_URL": valkey_url, "SLUICE_HOME": str(tmp_path)}
        role = await asyncio.to_thread(run_module, "services.cli", "run", "router", cwd=checkout, env=env)
        assert role.returncode == 2, role.stderr
        assert "newer Sluice" in role.stderr
        assert taken(client) == before


async def test_each_new_connection_refuses_the_state_of_a_newer_program(redis: AsyncRedis, valkey_url: str) -> None:
    await redis.set(KEY, STATE_VERSION + 1)
    async with connect(valkey_url, RedisSettings()) as newer:
        for _ in range(2):
            with pytest.raises(ConfigError, match="newer Sluice"):
                await newer.ping()
    with connect_sync(valkey_url, RedisSettings()) as blocking:
        for _ in range(2):
            with pytest.raises(ConfigError, match="newer Sluice"):
                blocking.ping()


async def test_a_user_who_may_not_read_the_version_can_publish(redis: AsyncRedis, valkey_url: str) -> None:
    await redis.execute_command("ACL", "SETUSER", "publisher", "on", ">secret", "~test:events", "+xadd", "+ping")
    settings = RedisSettings(username="publisher", password="secret")
    try:
        async with connect(valkey_url, settings) as client:
            assert await client.xadd("test:events", {"event": "{}"})
        with connect_sync(valkey_url, settings) as blocking:
            assert blocking.ping()
    finally:
        await redis.execute_command("ACL", "DELUSER", "publisher")


@pytest.mark.parametrize("garbage", [("SET", "no number"), ("SADD", "member")], ids=["value", "type"])
async def test_a_version_that_cannot_be_read_closes_nobody_out(
    redis: AsyncRedis, valkey_url: str, garbage: tuple[str, str]
) -> None:
    """The inspector must reach it to set it aside."""
    noted.take()
    await redis.execute_command(garbage[0], KEY, garbage[1])
    async with connect(valkey_url, RedisSettings()) as client:
        assert await client.ping()
    with connect_sync(valkey_url, RedisSettings()) as blocking:
        assert blocking.ping()
    assert noted.take()[0] == {KEY.encode()}
    await redis.delete(KEY)
