"""Whose state a Redis holds is known before a role does anything, also where Redis comes only later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from config.location import PROJECT_FILE
from config.project import load_project
from config.settings import Settings
from events.errors import Backpressure, ConfigError, TransientError
from services.operations.role import STOP_SECONDS
from services.shared import Shared, StateClaim
from services.store.connection import AsyncRedis
from services.store.events.journal import Journal, JournalEntry
from services.store.state.installation import PROJECT
from services.store.state_version import KEY, STATE_VERSION
from tests.support.failing_once import fails_once
from tests.support.waiting import eventually
from tests.unit.services.store.making import event


class Part:
    """A part of a role."""

    stop_seconds = 77.0

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    def status(self) -> Mapping[str, Any]:
        return {"ready": True}

    async def run(self) -> None:
        self.begun.set()


@pytest.fixture
def claim(redis: AsyncRedis, tmp_path: Path) -> StateClaim:
    return StateClaim(redis, project="shop", folder=tmp_path)


async def test_nothing_begins_before_the_state_is_claimed(redis: AsyncRedis, claim: StateClaim) -> None:
    assert claim.status() == {"ready": False}
    with pytest.raises(TransientError, match="whose state"):
        claim.demand()
    part = Part()
    waiting = claim.before(part)
    assert (waiting.status(), getattr(waiting, "stop_seconds", None)) == ({"ready": True}, 77.0)
    running = asyncio.create_task(waiting.run())
    await asyncio.sleep(0)
    assert not part.begun.is_set()
    await claim.attempt()
    await running
    assert part.begun.is_set()
    claim.demand()
    assert claim.before(part) is part, "from now on parts begin at once"
    assert await redis.get(KEY) == str(STATE_VERSION).encode()


async def test_a_part_that_does_not_say_how_long_it_takes_has_the_usual_time(claim: StateClaim) -> None:
    class Plain:
        def status(self) -> Mapping[str, Any]:
            return {}

        async def run(self) -> None: ...

    assert getattr(claim.before(Plain()), "stop_seconds", None) == STOP_SECONDS


@pytest.mark.parametrize("error", [TransientError, Backpressure])
async def test_a_redis_that_comes_later_is_claimed_then(
    claim: StateClaim, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    failed = fails_once(monkeypatch, StateClaim, "attempt", error=error)
    running = asyncio.create_task(claim.run())
    await eventually(lambda: asyncio.sleep(0, claim.status()["ready"]))
    assert failed
    assert not running.done(), "the part goes on, so that the role does"
    running.cancel()
    await asyncio.wait({running})


async def test_the_state_of_another_project_or_of_a_newer_sluice_ends_the_part(
    redis: AsyncRedis, claim: StateClaim
) -> None:
    await redis.set(PROJECT, json.dumps({"name": "bank", "folder": "/elsewhere", "host": "h"}))
    with pytest.raises(ConfigError, match="bank"):
        await claim.run()
    assert await redis.get(KEY) is None, "nothing was changed"
    await redis.delete(PROJECT)
    await redis.set(KEY, STATE_VERSION + 1)
    with pytest.raises(ConfigError, match="newer"):
        await claim.run()
    assert not claim.status()["ready"]


def _settings(tmp_path: Path, **urls: str | None) -> Settings:
    (tmp_path / PROJECT_FILE).write_text("name: shop\n")
    return Settings(home=tmp_path / "home", config=tmp_path / PROJECT_FILE, **urls)


def _shared(settings: Settings, stack: AsyncExitStack) -> Shared:
    return Shared(settings, load_project(settings.config, home=settings.home), stack)


async def test_a_role_without_addresses_is_told_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigError) as raised:
            _shared(_settings(tmp_path), stack)
    assert len(raised.value.problems) == 2
    assert "SLUICE_REDIS_URL" in raised.value.problems[0]
    assert "PREFECT_API_URL" in raised.value.problems[1]


async def test_a_listener_accepts_nothing_before_the_state_is_claimed(
    redis: AsyncRedis, valkey_url: str, tmp_path: Path
) -> None:
    settings = _settings(tmp_path, redis_url=valkey_url, prefect_api_url="http://127.0.0.1:1/api")
    async with AsyncExitStack() as stack:
        shared = _shared(settings, stack)
        emit = shared.emit_for("http")
        with pytest.raises(TransientError):
            await emit([event("a")])
        await shared.state_claim.attempt()
        (accepted,) = await emit([event("a")])
        assert accepted.new
    (entry,) = await Journal(redis, settings.journal).read()
    assert isinstance(entry, JournalEntry)
    assert (entry.event.id, entry.listener) == ("a", "http")
