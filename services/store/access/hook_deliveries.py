"""Recent webhook deliveries, by which a copied delivery is recognised, whatever id it has."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from services.store.connection import AsyncRedis, text
from services.store.keys import Key, is_text

DELIVERED: Final = "sluice:hooks:"
"""Prefix of the key with the id of the first delivery with a signature; a digest of hook and signature follows."""


class HookDeliveries:
    """Records deliveries. Raises `TransientError` or `Backpressure` when Redis cannot do it now."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def first(self, hook: str, signature: str, delivery: str, *, seconds: float) -> str:
        """Return the id of the first delivery with this signature within ``seconds``: its own, unless it is a copy."""
        digest = hashlib.blake2b(f"{hook}\0{signature}".encode(), digest_size=16).hexdigest()
        before: Any = await self._redis.set(DELIVERED + digest, delivery, nx=True, get=True, px=int(seconds * 1000))
        return delivery if before is None else text(before)


KEYS: Final = (
    Key(
        DELIVERED + "*", "string", "id of the delivery that brought a signature", "replay_seconds of the hook", is_text
    ),
)
