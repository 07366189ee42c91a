"""The identity of the installation whose state this Redis holds, the state's version, and its project."""

from __future__ import annotations

import json
import socket
import uuid
from pathlib import Path
from typing import Final, NamedTuple

from config.location import PROJECT_FILE
from events.errors import ConfigError, TransientError
from services.store import state_version
from services.store.connection import AsyncRedis, SyncRedis
from services.store.keys import Key, is_object, is_text
from services.store.redis_errors import translated
from services.store.unreadable import reading

KEY: Final = "sluice:installation"
PROJECT: Final = "sluice:project"


async def installation_id(redis: AsyncRedis) -> str:
    """Return the installation's unique id, created on first use. Raises `TransientError`."""
    await redis.set(KEY, uuid.uuid4().hex, nx=True)
    found = await redis.get(KEY)
    if not isinstance(found, bytes):
        raise TransientError("Redis did not keep a value that was just written: it is short of memory")
    with reading(KEY):
        return is_text(found)


async def claim_state(redis: AsyncRedis) -> None:
    """Record that this version's state is kept here.

    Raises `ConfigError`, with nothing changed, if a newer version's is, and `TransientError`.
    """
    await redis.set(state_version.KEY, state_version.STATE_VERSION, nx=True)
    state_version.refuse_newer(await redis.get(state_version.KEY))


def check_state(redis: SyncRedis) -> None:
    """Raise `ConfigError` for the state of a newer version, and `TransientError`. Blocks, and writes nothing."""
    with translated():
        redis.ping()  # each new connection checks the version


async def claim_project(redis: AsyncRedis, name: str | None, folder: Path) -> None:
    """Record the project whose state is kept here, with its name, if it has one. Raises as `check_project`."""
    await check_project(redis, name, folder)
    mine = json.dumps({"name": name, "folder": str(folder), "host": socket.gethostname()})
    await redis.set(PROJECT, mine, nx=True)
    await check_project(redis, name, folder)
    held = await _held(redis)
    if held is not None and held.name is None:  # it has moved, or has a name now
        await redis.set(PROJECT, mine)


async def project_name(redis: AsyncRedis) -> str | None:
    """Return the name of the recorded project, if it has one. Raises `TransientError`."""
    held = await _held(redis)
    return held.name if held else None


async def check_project(redis: AsyncRedis, name: str | None, folder: Path) -> None:
    """Raise `ConfigError` if this Redis holds another project than the one in ``folder``, and `TransientError`.

    Projects with different names are different. One without a name is different if, on this machine, it still exists in
    the other folder from which it was deployed.
    """
    held = await _held(redis)
    if held is None or (held.name is None and not held.stands_elsewhere(folder)):
        return
    if held.name is None:
        raise ConfigError(
            f"this Redis holds the project in {held.folder}, which has no name, and this one is "
            f"{name or 'without a name, too'} ({folder}): give this one another database of this Redis, as in "
            "SLUICE_REDIS_URL=redis://…/1, and each of them a `name` in its sluice.yaml"
        )
    if held.name != name:
        raise ConfigError(
            f"this Redis holds the project {held.name!r} ({held.folder}), and this one is {name or 'without a name'}: "
            f"if it is the same, write `name: {held.name}` into sluice.yaml, else give it another database of this "
            "Redis, as in SLUICE_REDIS_URL=redis://…/1"
        )


class _Holder(NamedTuple):
    """The project that a Redis holds."""

    name: str | None
    folder: str
    host: str | None

    def stands_elsewhere(self, folder: Path) -> bool:
        """Whether the project still exists in another folder on this machine."""
        there = Path(self.folder)
        return self.host == socket.gethostname() and there != folder and (there / PROJECT_FILE).exists()


async def _held(redis: AsyncRedis) -> _Holder | None:
    found = await redis.get(PROJECT)
    if not isinstance(found, bytes):
        return None
    with reading(PROJECT):
        holder = is_object(found)
        name, folder, host = holder["name"], str(holder["folder"]), holder.get("host")
        return _Holder(None if name is None else str(name), folder, host)


KEYS: Final = (
    Key(KEY, "string", "identity of the installation", "for good", is_text),
    Key(PROJECT, "string", "name, folder and machine of the project", "for good", is_object),
)
