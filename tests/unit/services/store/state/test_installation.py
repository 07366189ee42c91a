"""Whose state a Redis holds: one installation, of one version or an older one, and one project."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from config.location import PROJECT_FILE
from events.errors import ConfigError
from services.store.connection import AsyncRedis
from services.store.state import installation
from services.store.state.installation import (
    PROJECT,
    check_project,
    claim_project,
    claim_state,
    installation_id,
    project_name,
)
from services.store.state_version import KEY, STATE_VERSION
from services.store.unreadable import UnreadableKey


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return _project(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return _project(tmp_path / "there")


def _project(folder: Path) -> Path:
    folder.mkdir()
    (folder / PROJECT_FILE).touch()
    return folder


async def test_an_installation_keeps_the_id_that_it_got_first(redis: AsyncRedis) -> None:
    first = await installation_id(redis)
    assert len(first) == 32
    assert await installation_id(redis) == first
    await redis.set(installation.KEY, b"\xff")
    with pytest.raises(UnreadableKey):
        await installation_id(redis)


async def test_the_state_is_this_versions_unless_an_older_one_began_it(redis: AsyncRedis) -> None:
    await claim_state(redis)
    assert await redis.get(KEY) == str(STATE_VERSION).encode()
    await redis.set(KEY, 0)
    await claim_state(redis)
    assert await redis.get(KEY) == b"0"


async def test_the_state_of_a_newer_version_is_refused_unchanged(redis: AsyncRedis) -> None:
    await redis.set(KEY, STATE_VERSION + 1)
    with pytest.raises(ConfigError, match="nothing was touched"):
        await claim_state(redis)
    assert await redis.get(KEY) == str(STATE_VERSION + 1).encode()


async def test_an_empty_redis_is_any_projects_and_then_that_ones(redis: AsyncRedis, here: Path, there: Path) -> None:
    await check_project(redis, "shop", here)
    assert await project_name(redis) is None
    await claim_project(redis, "shop", here)
    assert await project_name(redis) == "shop"
    await claim_project(redis, "shop", there)
    with pytest.raises(ConfigError, match="holds the project 'shop'"):
        await claim_project(redis, "bank", here)
    with pytest.raises(ConfigError, match="without a name"):
        await check_project(redis, None, here)
    assert await project_name(redis) == "shop"


async def test_a_project_without_a_name_is_known_by_its_folder(redis: AsyncRedis, here: Path, there: Path) -> None:
    await claim_project(redis, None, here)
    await check_project(redis, None, here)
    for name in (None, "shop"):
        with pytest.raises(ConfigError, match="has no name"):
            await claim_project(redis, name, there)
    assert json.loads(await redis.get(PROJECT) or b"")["folder"] == str(here)


async def test_a_project_that_has_moved_takes_its_state_along(redis: AsyncRedis, here: Path, there: Path) -> None:
    await claim_project(redis, None, here)
    (here / PROJECT_FILE).unlink()
    await claim_project(redis, "shop", there)
    held = json.loads(await redis.get(PROJECT) or b"")
    assert held == {"name": "shop", "folder": str(there), "host": socket.gethostname()}


async def test_a_folder_on_another_machine_does_not_count(redis: AsyncRedis, here: Path, there: Path) -> None:
    await redis.set(PROJECT, json.dumps({"name": None, "folder": str(here), "host": "another"}))
    await check_project(redis, None, there)


@pytest.mark.parametrize("garbage", ["no json", "[]", "{}"])
async def test_a_record_that_cannot_be_read_is_no_other_project(redis: AsyncRedis, here: Path, garbage: str) -> None:
    await redis.set(PROJECT, garbage)
    with pytest.raises(UnreadableKey):
        await check_project(redis, "shop", here)
