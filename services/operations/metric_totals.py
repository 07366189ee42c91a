"""The totals of the metrics over the processes of all roles, running and past."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from services.common.metrics import Series
from services.store.connection import AsyncRedis, text
from services.store.keys import Key, pair
from services.store.scripts import Script
from services.store.unreadable import readable

TOTALS: Final = "sluice:metrics"
"""Hash: each series with its total. Totals only grow, whichever process starts or ends, so no counter goes back."""

MOST_SERIES: Final = 20_000
"""Beyond this number new series are dropped, so that names of rules or listeners cannot fill Redis."""

_ADD: Final = Script("add_gains")


class MetricTotals:
    """Adds and reads totals. Raises `TransientError` or `Backpressure`."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def add(self, gains: Mapping[str, float]) -> None:
        """Add the increase of one process; if the response is lost, a repetition may count it twice."""
        if gains:
            rows = [(field, repr(gain)) for field, gain in gains.items()]
            await _ADD(self._redis, totals=TOTALS, most=MOST_SERIES, gains=rows)

    async def read(self) -> list[tuple[Series, float]]:
        """Return every series with its total."""
        fields = await self._redis.hgetall(TOTALS)
        return list(readable(TOTALS, lambda row: (Series.parse(row[0]), _total(row[1])), fields.items()))


def _total(raw: bytes) -> float:
    value = float(text(raw))
    if not (math.isfinite(value) and value >= 0):
        raise ValueError("not a total")
    return value


KEYS: Final = (Key(TOTALS, "hash", "total of a metric's series", "for good", pair(Series.parse, _total)),)
