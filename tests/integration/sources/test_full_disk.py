"""A disk that is full: what was accepted is kept, what cannot be kept is refused, and room is all it takes to go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import RedisSettings
from config.sources import RedisSource
from events.errors import SluiceError
from services.listeners.redis.source import RedisListener, redis_listeners
from services.store.connection import AsyncRedis, connect
from tests.integration.files.mounts import mounted
from tests.support.sources import QUICK, Door, Letters, cloudevent, intake, running
from tests.support.valkeys import OwnValkey, own_valkey
from tests.support.waiting import eventually

SHORT = RedisSettings(connect_timeout_seconds=1, command_timeout_seconds=3)


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="mounts a file system of its own, as Linux does")
async def test_a_valkey_whose_disk_is_full_slows_sources_down_and_drops_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=4m", "tmpfs", disk), own_valkey(disk) as valkey:
        redis, publisher = connect(valkey.url, SHORT), connect(valkey.url, SHORT)
        letters = Letters()
        (listener,) = redis_listeners(
            "events",
            RedisSource(stream="sluice.events"),
            intake=intake(Door(redis), letters),
            redis=redis,
            connect=lambda: connect(valkey.url, SHORT),
            settings=QUICK,
        ).values()
        accepted: list[str] = []
        ballast = disk / "ballast"
        async with running(listener):
            ballast.write_bytes(b"x" * 2_000_000)
            # Publishers are refused visibly once nothing can be written any more.
            await eventually(lambda: _refused(publisher, accepted))
            await eventually(lambda: _says(listener, "disk"))
            ballast.unlink()
            await eventually(lambda: _taken(publisher, accepted))
            await eventually(lambda: _holds(redis, accepted))
            await eventually(lambda: _well(listener))
        assert not letters.by_id
        await _restarted(valkey)
        found = await Door(redis).ids()
        assert set(accepted) <= set(found)
        assert len(found) == len(set(found))
        await redis.aclose()
        await publisher.aclose()


async def _refused(publisher: AsyncRedis, accepted: list[str]) -> bool:
    return not await _taken(publisher, accepted)


async def _taken(publisher: AsyncRedis, accepted: list[str]) -> bool:
    name = f"e{len(accepted)}"
    try:
        await publisher.xadd("sluice.events", {"event": cloudevent(name, data={"note": "x" * 20_000})})
    except SluiceError:
        return False
    accepted.append(name)
    return True


async def _says(listener: RedisListener, words: str) -> bool:
    return words in listener.status().get("degraded", "")


async def _well(listener: RedisListener) -> bool:
    return "degraded" not in listener.status()


async def _holds(redis: AsyncRedis, accepted: list[str]) -> bool:
    return set(accepted) <= set(await Door(redis).ids())


async def _restarted(valkey: OwnValkey) -> None:
    """Killed and back, with what it had written."""
    valkey.kill()
    valkey.start()
