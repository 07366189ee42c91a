"""The identity of the installation whose state this Redis holds."""

from __future__ import annotations

import uuid
from typing import Final

from events.errors import TransientError
from services.store.connection import AsyncRedis, translated
from services.store.keys import Key, is_text
from services.store.unreadable import reading

KEY: Final = "sluice:installation"


async def installation_id(redis: AsyncRedis) -> str:
    """A text that no other installation has; made when it is first asked for. Raises `TransientError`."""
    with translated():
        await redis.set(KEY, uuid.uuid4().hex, nx=True)
        found = await redis.get(KEY)
    if not isinstance(found, bytes):
        raise TransientError("Redis has forgotten at once what it was told: it is short of memory")
    with reading(KEY):
        return is_text(found)


KEYS: Final = (Key(KEY, "string", "identity of the installation", "for good", is_text),)
