"""Writes the verdicts on an event as one compact history line."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from config.settings import HistorySettings
from events.rule import Verdict, explained
from services.store.connection import AsyncRedis
from services.store.events.event_history import compact_json, packed
from services.store.events.history import SHARED
from services.store.scripts import Script

_SHARED_REFRESH_SECONDS: Final = 3600.0
_DETAIL_LIMIT: Final = 500
_MOST_REMEMBERED: Final = 10_000

_SHARE: Final = Script("events/share_verdicts")
_SETTLED_BY_TYPE: Final = frozenset({"type", "enabled", "stop"})
"""Criteria whose verdicts are the same for every event of a type (below a rule that stopped the others, too)."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An event's verdicts, and the version of the rules."""

    position: str
    type: str
    verdicts: Sequence[Verdict]
    version: str
    notes: Mapping[str, str] = field(default_factory=dict)
    """By rule: the result of a match, if it is not a run."""


class VerdictLines:
    """Makes the history lines of events' verdicts.

    Verdicts of rules that do not match because of the event's type are the same for every event of the type. They are
    stored once and referred to by digest, so that hundreds of rules do not take kilobytes for each event.
    """

    def __init__(self, redis: AsyncRedis, settings: HistorySettings) -> None:
        self._retention_seconds = settings.retention_seconds
        self._redis = redis
        self._digests: dict[tuple[Any, ...], str] = {}
        self._written: dict[str, float] = {}

    async def lines(self, judged: Sequence[Judged], *, now_ms: int) -> list[bytes]:
        """Return the line of each event; the common verdicts are stored before this returns."""
        shared: dict[str, bytes] = {}
        lines = [self._line(one, now_ms, shared) for one in judged]
        if shared:
            await self._store(shared)
        return lines

    def _line(self, one: Judged, now_ms: int, shared: dict[str, bytes]) -> bytes:
        common: list[tuple[int, Verdict]] = []
        own: list[list[Any]] = []
        for index, verdict in enumerate(one.verdicts):
            if verdict.matched:
                said = verdict.error.reason if verdict.error is not None else one.notes.get(verdict.rule, "")
                own.append([index, verdict.rule, None, said[:_DETAIL_LIMIT]] if said else [index, verdict.rule])
            elif verdict.failed in _SETTLED_BY_TYPE:
                common.append((index, verdict))
            else:
                own.append(_row(index, verdict, one.type))
        digest = self._digest(one, common, shared) if common else ""
        return packed(["v", now_ms, one.position, one.version, digest, own])

    def _digest(self, one: Judged, common: list[tuple[int, Verdict]], shared: dict[str, bytes]) -> str:
        key = (one.version, one.type, common[-1][1].detail, tuple(index for index, _ in common))
        digest = self._digests.get(key)
        if digest is not None and time.monotonic() - self._written.get(digest, -1e9) < _SHARED_REFRESH_SECONDS:
            return digest
        text = compact_json([_row(index, verdict, one.type) for index, verdict in common])
        digest = hashlib.blake2b(text, digest_size=9).hexdigest()
        if len(self._digests) > _MOST_REMEMBERED:
            self._digests.clear()
            self._written.clear()
        self._digests[key] = digest
        shared[digest] = text
        return digest

    async def _store(self, shared: Mapping[str, bytes]) -> None:
        life = int(self._retention_seconds + 2 * _SHARED_REFRESH_SECONDS)
        for digest, text in shared.items():
            await _SHARE(self._redis, verdicts=SHARED + digest, value=zlib.compress(text), life_seconds=life)
        self._written.update(dict.fromkeys(shared, time.monotonic()))


def _row(index: int, verdict: Verdict, type_: str) -> list[Any]:
    return [index, verdict.rule, verdict.failed, explained(verdict, type_)[:_DETAIL_LIMIT]]
