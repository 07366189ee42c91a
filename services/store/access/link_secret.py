"""The secret that approval links are signed with; all instances of the API and the commands share it."""

from __future__ import annotations

import secrets
from typing import Any, Final

from services.store.connection import AsyncRedis
from services.store.keys import Key

SECRET: Final = "sluice:links:secret"  # noqa: S105 - a name
_BYTES: Final = 32


async def link_secret(redis: AsyncRedis) -> bytes:
    """Return the secret, created on first use; deleting it invalidates every link. Raises `TransientError`."""
    fresh = secrets.token_bytes(_BYTES)
    before: Any = await redis.set(SECRET, fresh, nx=True, get=True)
    return fresh if before is None else bytes(before)


def _is_secret(raw: bytes) -> None:
    if len(raw) != _BYTES:
        raise ValueError("not a secret")


KEYS: Final = (Key(SECRET, "string", "secret that approval links are signed with", "for good", _is_secret),)
