"""Signals that the tests of their stores need."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from events.signal import Outcome, ResumeSignal
from services.store.signals.signal_record import Mark, SignalRecord
from services.store.signals.signals import SignalStore

NOW = datetime.now(UTC)
R1 = "00000001-0000-4000-8000-000000000000"
R2 = "00000002-0000-4000-8000-000000000000"
WAIT = "sluice-wait-1-k"


def signal(id_: str = "s1", **fields: Any) -> ResumeSignal:
    target = {} if "run_id" in fields else {"key": "k"}
    return ResumeSignal.model_validate({"id": id_, "sent": NOW, **target, **fields})


async def submitted(store: SignalStore, id_: str = "s1", **fields: Any) -> SignalRecord:
    """A signal as the store has it."""
    await store.submit(signal(id_, **fields), "test")
    return await again(store, id_)


async def again(store: SignalStore, id_: str = "s1") -> SignalRecord:
    """The signal as the store has it now."""
    found = await store.get(id_)
    assert found is not None
    return found


async def apply(store: SignalStore, record: SignalRecord, run_id: str = R1, wait: str = WAIT) -> None:
    """Apply a signal to a run, as a resumer does."""
    mark = Mark(wait=wait)
    async with store.busy(f"run {run_id}") as busy:
        assert await store.claim(record, run_id, mark, busy)
        await store.settle(record, run_id, mark.model_copy(update={"outcome": Outcome.APPLIED, "reason": "applied"}))
    assert await store.decide(await again(store, record.signal.id), Outcome.APPLIED, "applied")
