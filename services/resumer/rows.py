"""Signals as rows for listings."""

from __future__ import annotations

from typing import Any

from services.store.signal_record import SignalRecord


def row(record: SignalRecord) -> dict[str, Any]:
    """One line of a listing; times are datetimes, ids are text."""
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
        "event_id": signal.event_id,
        "sent": signal.sent,
        "received": record.received,
        "decided": record.decided,
        "expires": record.expires if record.open else None,
        "runs": [
            {"run_id": run_id, "outcome": mark.outcome.value if mark.outcome else None, "reason": mark.reason}
            for run_id, mark in record.marks.items()
        ],
    }


def whole(record: SignalRecord) -> dict[str, Any]:
    """Everything about one signal."""
    signal = record.signal
    return {
        **row(record),
        "input": signal.input,
        "reject_reason": signal.reason,
        "deliver": signal.deliver,
        "ttl_seconds": signal.ttl_seconds,
        "repeats": record.repeats,
        "log": [{"at": line.at, "status": line.status, "reason": line.reason} for line in record.log],
    }
