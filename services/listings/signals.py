"""Finds signals by a filter, and makes their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from events.identity import id_of
from services.listings.filters import SignalFilter
from services.store.connection import AsyncRedis
from services.store.events.known_events import KnownEvents
from services.store.signals.signal_queries import SignalQueries
from services.store.signals.signal_record import SignalRecord


async def find_signals(
    signals: SignalQueries,
    asked: SignalFilter,
    *,
    limit: int,
    before: int | None = None,
    allowed: Callable[[SignalRecord], bool] = lambda _record: True,
) -> list[SignalRecord]:
    """Return the newest signals that match ``asked`` and are ``allowed``, with a place before ``before``."""

    def wanted(record: SignalRecord) -> bool:
        return asked.matches(record) and allowed(record)

    if asked.run is None:
        return await signals.newest(limit, wanted=wanted, before=before)
    found = [one for one in reversed(await signals.of_run(asked.run)) if wanted(one)]
    return [one for one in found if before is None or one.place < before][:limit]


async def event_sources(redis: AsyncRedis, records: Sequence[SignalRecord]) -> dict[str, str | None]:
    """Return the sources of the events that led to the signals, by identity."""
    identities = [one.signal.event_identity for one in records if one.signal.event_identity]
    return await KnownEvents(redis).sources(identities)


async def rows(redis: AsyncRedis, records: Sequence[SignalRecord]) -> list[dict[str, Any]]:
    """Return the signals as rows of a listing."""
    sources = await event_sources(redis, records)
    return [row(record, sources) for record in records]


def row(record: SignalRecord, sources: Mapping[str, str | None] = MappingProxyType({})) -> dict[str, Any]:
    """Return a row of a listing; times are datetimes, ids are text. ``sources``: those of events, by identity."""
    signal = record.signal
    return {
        "id": signal.id,
        "outcome": record.status,
        "reason": record.reason,
        "target": signal.target,
        "run_id": str(signal.run_id) if signal.run_id else None,
        "key": signal.key,
        "action": signal.action,
        "by": signal.by,
        "origin": record.origin,
        "event_id": id_of(signal.event_identity) if signal.event_identity else None,
        "event_source": sources.get(signal.event_identity or ""),
        "sent": signal.sent,
        "received": record.received,
        "decided": record.decided,
        "expires": record.expires if record.open else None,
        "runs": [
            {"run_id": run_id, "outcome": mark.outcome.value if mark.outcome else None, "reason": mark.reason}
            for run_id, mark in record.marks.items()
        ],
    }


async def whole(redis: AsyncRedis, record: SignalRecord) -> dict[str, Any]:
    """Return all fields of one signal."""
    signal = record.signal
    return {
        **row(record, await event_sources(redis, [record])),
        "input": signal.input,
        "reject_reason": signal.reason,
        "deliver": signal.deliver,
        "ttl_seconds": signal.ttl_seconds,
        "repeats": record.repeats,
        "log": [{"at": line.at, "status": line.status, "reason": line.reason} for line in record.log],
    }
