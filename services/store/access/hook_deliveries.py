"""Which bodies a webhook has brought lately: a copied delivery is known, whatever id its copier gives it."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from services.store.connection import AsyncRedis, text
from services.store.keys import Key, is_text

DELIVERED: Final = "sluice:hooks:"
"""Prefix of the id of the delivery that brought a signature; behind it a digest of hook and signature."""


class HookDeliveries:
    """Raises `TransientError` or `Backpressure` when Redis cannot do it now."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def first(self, hook: str, signature: str, delivery: str, *, seconds: float) -> str:
        """The id of the delivery that brought the signature first within ``seconds``: its own, unless it is a copy."""
        digest = hashlib.blake2b(f"{hook}\0{signature}".encode(), digest_size=16).hexdigest()
        before: Any = await self._redis.set(DELIVERED + digest, delivery, nx=True, get=True, px=int(seconds * 1000))
        return delivery if before is None else text(before)


KEYS: Final = (
    Key(
        DELIVERED + "*", "string", "id of the delivery that brought a signature", "replay_seconds of the hook", is_text
    ),
)
