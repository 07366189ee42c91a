"""The version of what is kept in Redis, so that an older program does not touch what it does not know."""

from __future__ import annotations

from typing import Final

from events.errors import ConfigError
from services.store.connection import AsyncRedis, SyncRedis, translated
from services.store.keys import Key, is_number
from services.store.unreadable import reading

KEY: Final = "sluice:state-version"

STATE_VERSION: Final = 1
"""Raised by a change that an older program would read wrongly or destroy; what only adds fields is no such change."""


async def claim_state(redis: AsyncRedis) -> None:
    """Note that this program keeps its state here.

    Raises `ConfigError`, with nothing changed, where a newer program does, and `TransientError`.
    """
    await redis.set(KEY, STATE_VERSION, nx=True)
    found = await redis.get(KEY)
    _refuse_newer(found)


def check_state(redis: SyncRedis) -> None:
    """Raise `ConfigError` for the state of a newer program, and `TransientError`. Blocks, and writes nothing."""
    with translated():
        found = redis.get(KEY)
    _refuse_newer(found)


def _refuse_newer(found: object) -> None:
    if not isinstance(found, bytes):
        return
    with reading(KEY):
        version = is_number(found)
    if version > STATE_VERSION:
        raise ConfigError(
            f"this Redis holds the state of a newer Sluice (version {version} of the state; this program knows up to "
            f"{STATE_VERSION}), and nothing was touched: start the newer Sluice, or restore a backup that was made "
            "before the upgrade (docs/backup.md)"
        )


KEYS: Final = (Key(KEY, "string", "version of the state", "for good", is_number),)
