"""The inspector of each role sets aside what is its own, asks the router for the rest, and touches nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from config.settings import RedisSettings, RoleName
from services.operations.upkeep import inspector
from services.operations.upkeep.inspector import Inspector
from services.store.access.acl import AclUser, acl_file, acl_users
from services.store.access.role_rights import KEEPER, RIGHTS
from services.store.connection import AsyncRedis, connect
from services.store.inspection.looks import LOOKED, WANTED
from services.store.unreadable import noted
from tests.support.valkeys import refused
from tests.support.waiting import eventually

OTHERS = [role for role in RIGHTS if role != KEEPER]


@pytest.fixture
async def users(redis: AsyncRedis) -> AsyncIterator[dict[str, AclUser]]:
    made = {user.name: user for user in acl_users([])}
    for line in acl_file(made.values()).splitlines():
        if not line.startswith("user default "):
            await redis.execute_command("ACL", "SETUSER", *line.split()[1:])
    await redis.execute_command("ACL", "LOG", "RESET")
    yield made
    await redis.execute_command("ACL", "DELUSER", *made)
    noted.take()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "LOOK_SECONDS", 0.01)
    noted.take()


@contextlib.asynccontextmanager
async def inspecting(url: str, user: AclUser, role: RoleName) -> AsyncIterator[Inspector]:
    async with connect(url, RedisSettings(username=user.name, password=user.password)) as client:
        part = Inspector(client, role=role)
        task = asyncio.create_task(part.run())
        try:
            yield part
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def rounds(number: int) -> None:
    """Return when the inspector has taken what is noted so many times."""

    async def taken() -> bool:
        return not noted._keys

    for _ in range(number):
        noted.add(b"test:no key of Sluice")
        await eventually(taken, what="the inspector looks again")


@pytest.mark.parametrize("role", OTHERS)
async def test_a_role_that_could_not_look_asks_the_router_again_and_looks_at_no_key_of_others(
    valkey_url: str, redis: AsyncRedis, users: dict[str, AclUser], role: RoleName
) -> None:
    await redis.set("sluice:dead", "evil")
    await redis.set("sluice:metrics", "evil")
    await redis.set("sluice:verdicts:evil", "evil")
    await redis.set("sluice:window:closed:evil", "evil")
    noted.add("sluice:metrics")
    noted.add(None)  # what nobody knows the key of, while no letter can be kept
    async with inspecting(valkey_url, users[f"sluice-{role}"], role) as part:
        await eventually(lambda: redis.exists(WANTED), what="the router is asked to look at everything")
        await rounds(5)
        assert part.status()["set_aside"] == 2
    assert not await refused(redis)
    assert not await redis.exists(LOOKED)
    assert await redis.exists("sluice:verdicts:evil", "sluice:window:closed:evil") == 2
    assert not await redis.exists("sluice:metrics")


@pytest.mark.parametrize("role", OTHERS)
async def test_a_key_that_another_role_writes_is_for_the_router_to_look_at(
    valkey_url: str, redis: AsyncRedis, users: dict[str, AclUser], role: RoleName
) -> None:
    await redis.set("sluice:windows:open", "evil")
    noted.add("sluice:windows:open")
    async with inspecting(valkey_url, users[f"sluice-{role}"], role):
        await eventually(lambda: redis.exists(WANTED), what="the router is asked to look at everything")
    assert not await refused(redis)
    async with inspecting(valkey_url, users[f"sluice-{KEEPER}"], KEEPER):
        await eventually(lambda: redis.exists(LOOKED), what="the router has looked")
    assert not await redis.exists("sluice:windows:open")
    assert not await refused(redis)
