"""Which deployments are the project's own, as `sluice deploy` recorded it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from config.settings import RedisSettings
from events.errors import TransientError
from services.store.connection import AsyncRedis, SyncRedis, connect_sync
from services.store.runs.registered_files import KEY, RegisteredFile, RegisteredFiles, forget, remember
from services.store.unreadable import noted

FILE = RegisteredFile("/project", "flows/a.py:main")
pytestmark = pytest.mark.usefixtures("redis")


@pytest.fixture
def blocking(valkey_url: str) -> Iterator[SyncRedis]:
    with connect_sync(valkey_url, RedisSettings()) as client:
        yield client


@pytest.fixture
def files(blocking: SyncRedis) -> RegisteredFiles:
    return RegisteredFiles(blocking)


async def test_what_was_registered_is_known_after_the_next_refresh(redis: AsyncRedis, files: RegisteredFiles) -> None:
    assert not files.refresh()
    await remember(redis, "d1", FILE)
    assert files.get("d1") is None
    assert files.refresh()
    assert files.get("d1") == FILE
    assert not files.refresh(), "nothing has changed since"


async def test_a_deployment_that_was_removed_is_foreign_from_then_on(redis: AsyncRedis, files: RegisteredFiles) -> None:
    await remember(redis, "d1", FILE)
    files.refresh()
    await forget(redis, "d1")
    assert files.refresh()
    assert files.get("d1") is None


async def test_a_redis_that_lost_everything_gets_the_record_back(redis: AsyncRedis, files: RegisteredFiles) -> None:
    await remember(redis, "d1", FILE)
    files.refresh()
    await redis.delete(KEY)
    assert not files.refresh()
    assert files.get("d1") == FILE
    again = await redis.hgetall(KEY)
    assert b"d1" in again


async def test_garbage_registers_nothing_and_is_noted(redis: AsyncRedis, files: RegisteredFiles) -> None:
    noted.take()
    await remember(redis, "d1", FILE)
    await redis.hset(KEY, mapping={"d2": "no json", "d3": '{"path": "/elsewhere"}', b"\xff": "{}"})
    files.refresh()
    assert files.get("d1") == FILE
    assert (files.get("d2"), files.get("d3")) == (None, None)
    assert noted.take()[0] == {KEY.encode()}


async def test_while_redis_is_away_the_last_record_counts(
    redis: AsyncRedis, files: RegisteredFiles, blocking: SyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await remember(redis, "d1", FILE)
    files.refresh()

    def away(_: object) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(blocking, "hgetall", away)
    with pytest.raises(TransientError):
        files.refresh()
    assert files.get("d1") == FILE
