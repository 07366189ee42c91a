"""Signals as rows for listings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from events.identity import id_of
from services.store.signals.signal_record import SignalRecord


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


def whole(record: SignalRecord, sources: Mapping[str, str | None]) -> dict[str, Any]:
    """Return all fields of one signal."""
    signal = record.signal
    return {
        **row(record, sources),
        "input": signal.input,
        "reject_reason": signal.reason,
        "deliver": signal.deliver,
        "ttl_seconds": signal.ttl_seconds,
        "repeats": record.repeats,
        "log": [{"at": line.at, "status": line.status, "reason": line.reason} for line in record.log],
    }
