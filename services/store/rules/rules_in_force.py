"""The rules in force, as the routers last loaded them, for comparison with a changed file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.store.connection import AsyncRedis, text
from services.store.keys import Key
from services.store.unreadable import reading

IN_FORCE: Final = "sluice:rules"


@dataclass(frozen=True, slots=True)
class InForce:
    """The text of a loaded project file; ``at`` is an ISO 8601 time."""

    version: str
    path: str
    text: str
    at: str


class RulesInForce:
    """The project file that the routers use. Raises `TransientError` or `Backpressure`."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def put(self, loaded: InForce) -> None:
        """Record that these rules are in force now."""
        fields = {"version": loaded.version, "path": loaded.path, "text": loaded.text, "at": loaded.at}
        await self._redis.hset(IN_FORCE, mapping=fields)  # type: ignore[arg-type]

    async def get(self) -> InForce | None:
        """Return the rules in force; None before the first router."""
        fields: Any = await self._redis.hgetall(IN_FORCE)
        if not fields:
            return None
        with reading(IN_FORCE):
            return _in_force(fields)


def _in_force(fields: Mapping[bytes, bytes]) -> InForce:
    return InForce(**{name: text(fields[name.encode()]) for name in ("version", "path", "text", "at")})


KEYS: Final = (Key(IN_FORCE, "hash", "project file that is in force", "for good", _in_force, whole=True),)
