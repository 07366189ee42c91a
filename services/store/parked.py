"""Parked events: a rule that cannot render its actions keeps them here until it has changed, or works again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from services.store.connection import EVEN_WHEN_FULL, AsyncRedis, translated
from services.store.journal import JOURNAL_AGAIN, text

PARKED: Final = "sluice:parked"
"""The rules that have events parked."""

EVENTS: Final = "sluice:parked:"
"""Prefix of a rule's stream of parked events: their positions in the journal and the salts of reruns."""

PARK: Final = f"""
local function park(rule, position, salt)
  redis.call('SADD', '{PARKED}', rule)
  redis.call('XADD', '{EVENTS}' .. rule, '*', 'p', position, 's', salt)
end
"""

# ARGV: rule, how many. Answers how many went back into the journal.
_UNPARK: Final = (
    JOURNAL_AGAIN
    + f"""
local stream = '{EVENTS}' .. ARGV[1]
local rows = redis.call('XRANGE', stream, '-', '+', 'COUNT', ARGV[2])
for _, row in ipairs(rows) do
  journal_again(row[2][2], ARGV[1], row[2][4])
  redis.call('XDEL', stream, row[1])
end
if redis.call('XLEN', stream) == 0 then
  redis.call('DEL', stream)
  redis.call('SREM', '{PARKED}', ARGV[1])
end
return #rows
"""
)

_STEP: Final = 200


def parked_token(rule: str) -> str:
    """The effect that an event waits for while it is parked."""
    return f"{rule}~parked"


class Parked:
    """Every rule's parked events; raises `TransientError` when Redis is out of reach."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis
        self._unpark = redis.register_script(EVEN_WHEN_FULL + _UNPARK)

    async def unpark(self, rules: Sequence[str] | None = None) -> int:
        """Have the parked events of ``rules`` (of all, by default) judged again; answers how many those are."""
        total = 0
        for rule in await self._rules() if rules is None else rules:
            left = await self._length(rule)  # what is parked again meanwhile is not taken up again
            while left > 0:
                with translated():
                    moved = int(await self._unpark(args=[rule, min(_STEP, left)]))
                left -= moved or left
                total += moved
        return total

    async def counts(self) -> Mapping[str, int]:
        """How many events each rule has parked."""
        return {rule: await self._length(rule) for rule in await self._rules()}

    async def oldest_positions(self) -> list[str]:
        """The journal's positions that the first parked events need, so that they are not trimmed away."""
        with translated():
            heads = [await self._redis.xrange(EVENTS + rule, count=1) for rule in await self._rules()]
        return [text(rows[0][1][b"p"]) for rows in heads if rows and rows[0][1]]

    async def _rules(self) -> list[str]:
        with translated():
            return sorted(text(rule) for rule in await self._redis.smembers(PARKED))

    async def _length(self, rule: str) -> int:
        with translated():
            return int(await self._redis.xlen(EVENTS + rule))
