"""The identity of the installation whose state this Redis holds, and the name of its project."""

from __future__ import annotations

import json
import uuid
from typing import Final

from events.errors import ConfigError, TransientError
from services.store.connection import AsyncRedis, translated
from services.store.keys import Key, is_object, is_text
from services.store.unreadable import reading

KEY: Final = "sluice:installation"
PROJECT: Final = "sluice:project"


async def installation_id(redis: AsyncRedis) -> str:
    """A text that no other installation has; made when it is first asked for. Raises `TransientError`."""
    with translated():
        await redis.set(KEY, uuid.uuid4().hex, nx=True)
        found = await redis.get(KEY)
    if not isinstance(found, bytes):
        raise TransientError("Redis has forgotten at once what it was told: it is short of memory")
    with reading(KEY):
        return is_text(found)


async def claim_project_name(redis: AsyncRedis, name: str | None, folder: str) -> None:
    """Note the name of the project that is kept here from now on, if it has one. Raises as `check_project_name`."""
    if name is not None:
        with translated():
            await redis.set(PROJECT, json.dumps({"name": name, "folder": folder}), nx=True)
    await check_project_name(redis, name)


async def project_name(redis: AsyncRedis) -> str | None:
    """The name of the project that is kept here, if it has one. Raises `TransientError`."""
    held = await _held(redis)
    return held[0] if held else None


async def check_project_name(redis: AsyncRedis, name: str | None) -> None:
    """Raise `ConfigError` where this Redis holds a project of another name, and `TransientError`."""
    held = await _held(redis)
    if held is not None and held[0] != name:
        raise ConfigError(
            f"this Redis holds the project {held[0]!r} ({held[1]}), and this one is {name or 'without a name'}: if it "
            f"is the same, write `name: {held[0]}` into sluice.yaml, else give it another database of this Redis, as "
            "in SLUICE_REDIS_URL=redis://…/1"
        )


async def _held(redis: AsyncRedis) -> tuple[str, str] | None:
    """Name and folder of the project."""
    with translated():
        found = await redis.get(PROJECT)
    if not isinstance(found, bytes):
        return None
    with reading(PROJECT):
        holder = is_object(found)
        return str(holder["name"]), str(holder["folder"])


KEYS: Final = (
    Key(KEY, "string", "identity of the installation", "for good", is_text),
    Key(PROJECT, "string", "name and folder of the project, if it has a name", "for good", is_object),
)
