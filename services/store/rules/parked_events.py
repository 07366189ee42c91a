"""Parked events: events on which a rule's templates fail, until the rule has changed or works again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.store.connection import AsyncRedis, text
from services.store.keys import Key, is_position, is_text
from services.store.scripts import Script
from services.store.unreadable import readable

PARKED: Final = "sluice:parked"
"""Set of the rules with parked events."""

EVENTS: Final = "sluice:parked:"
"""Prefix of a rule's stream of parked events: their positions in the journal and the salts of reruns."""

_UNPARK: Final = Script("rules/unpark")
_STEP: Final = 200


def parked_token(rule: str) -> str:
    """The effect that an event waits for while it is parked."""
    return f"{rule}~parked"


class ParkedEvents:
    """Every rule's parked events; raises `TransientError` when Redis is out of reach."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def unpark(self, rules: Sequence[str] | None = None) -> int:
        """Have the parked events of ``rules`` (default: all) evaluated again; return their number."""
        total = 0
        for rule in await self._rules() if rules is None else rules:
            left = await self._length(rule)  # events that are parked again meanwhile are left
            while left > 0:
                moved = int(await _UNPARK(self._redis, rule=rule, most=min(_STEP, left)))
                left -= moved or left
                total += moved
        return total

    async def counts(self) -> Mapping[str, int]:
        """Return the number of parked events of each rule."""
        counts = {rule: await self._length(rule) for rule in await self._rules()}
        return {rule: count for rule, count in counts.items() if count}

    async def oldest_positions(self) -> list[str]:
        """Return the journal's positions of the oldest parked events, which must not be trimmed."""
        found: list[str] = []
        for rule in await self._rules():
            rows: Any = await self._redis.xrange(EVENTS + rule, count=1)
            found += readable(EVENTS + rule, _position, (fields for _, fields in rows))
        return found

    async def _rules(self) -> list[str]:
        found = await self._redis.smembers(PARKED)
        return sorted(readable(PARKED, text, found))

    async def _length(self, rule: str) -> int:
        return int(await self._redis.xlen(EVENTS + rule))


def _position(fields: Mapping[bytes, bytes]) -> str:
    return is_position(fields[b"p"])


def _is_parked(fields: Mapping[bytes, bytes]) -> None:
    if list(fields) != [b"p", b"s"]:
        raise KeyError("p, s")
    is_position(fields[b"p"])
    is_text(fields[b"s"])


KEYS: Final = (
    Key(PARKED, "set", "rule that has events parked", "until it has none", is_text),
    Key(EVENTS + "*", "stream", "parked event", "until the rule works or has changed", _is_parked),
)
