"""Counts each rule's use of its limits: active runs, and runs that its rate admitted. Survives a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.store.connection import AsyncRedis
from services.store.keys import Key, scored
from services.store.runs.created_runs import ACTIVE, RUNS
from services.store.scripts import Script
from services.store.unreadable import reading

PASSED: Final = "sluice:rate:"
"""Prefix of a rule's set of queue entries that its rate admitted, by time (ms), while the rate counts them."""

_LET_THROUGH: Final = Script("rules/let_through")


@dataclass(frozen=True, slots=True)
class RuleUsage:
    """The use of the limits at this moment."""

    active: Mapping[str, int]
    """Number of open runs of each requested rule."""
    passed: Mapping[str, int]
    """Number of runs that each rule's rate has admitted within its period."""
    oldest_ms: Mapping[str, int]
    """When the first of those was admitted, if any: it stops counting when the rate's period is over."""
    open_runs: int


class RuleUsages:
    """Reads and writes usage; raises `TransientError` or `Backpressure`."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def usage(self, *, active: Sequence[str], rates: Mapping[str, float], now_ms: int) -> RuleUsage:
        """Return the usage of the rules ``active`` by runs, and of those in ``rates`` within their seconds."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.zcard(RUNS)
        for rule in active:
            pipeline.scard(ACTIVE + rule)
        for rule, seconds in rates.items():
            since = now_ms - int(seconds * 1000)
            pipeline.zremrangebyscore(PASSED + rule, "-inf", since)
            pipeline.zcard(PASSED + rule)
            pipeline.zrange(PASSED + rule, 0, 0, withscores=True)
        answers: list[Any] = await pipeline.execute()
        of_rates = answers[1 + len(active) :]
        passed = dict(zip(rates, (int(count) for count in of_rates[1::3]), strict=True))
        oldest: dict[str, int] = {}
        for rule, first in zip(rates, of_rates[2::3], strict=True):
            with reading(PASSED + rule):
                oldest.update((rule, int(score)) for _, score in first)
        counts = (int(count) for count in answers[1 : 1 + len(active)])
        return RuleUsage(dict(zip(active, counts, strict=True)), passed, oldest, int(answers[0]))

    async def pass_on(self, passed: Mapping[str, Sequence[str]], *, seconds: Mapping[str, float], now_ms: int) -> None:
        """Record which entries of each rule's queues its rate admits now."""
        for rule, entries in passed.items():
            life_ms = int(seconds[rule] * 1000) + 1000
            await _LET_THROUGH(self._redis, log=PASSED + rule, now_ms=now_ms, life_ms=life_ms, entries=entries)


KEYS: Final = (Key(PASSED + "*", "zset", "run that a rule's rate let pass", "as long as the rate counts it", scored()),)
