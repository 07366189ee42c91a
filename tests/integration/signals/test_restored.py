"""A run of a restored backup waits for a process that is gone: it takes an answer once an executor has settled it."""

from __future__ import annotations

from typing import Any

import pytest

from config.settings import RedisSettings
from services.signals.applier import Applier
from services.store.connection import connect_sync
from services.store.runs.executions import Execution, Executions, note_restored
from tests.integration.signals.conftest import Desk, new_key, settings


@pytest.mark.parametrize("message", [{"input": {"n": 1}}, {"action": "reject"}], ids=["answer", "rejection"])
@pytest.mark.parametrize("by_key", [True, False], ids=["key", "run"])
async def test_a_restored_run_takes_no_signal_before_it_is_settled(
    submission: Desk, valkey_url: str, message: dict[str, Any], by_key: bool
) -> None:
    key = new_key()
    run_id = await submission.park(key)
    applier = Applier(store=submission.store, runs=submission.runs, hints=submission.hints, settings=settings())
    signal_id = await submission.send_quietly(**message, **({"key": key} if by_key else {"run_id": run_id}))
    with connect_sync(valkey_url, RedisSettings()) as redis:
        executions = Executions(redis, name=new_key(), alive_seconds=60)
        executions.begin(Execution(run_id, "gone", 1.5))
        note_restored(redis, "The run's process ended with the installation that was backed up.")
        await applier.apply(signal_id)
        record = await submission.store.get(signal_id)
        assert record is not None
        assert (record.open, await submission.resumes(run_id)) == (True, 0)
        taken = executions.take_over(executions.all()[0], "here")
        assert taken is not None
        await applier.apply(signal_id)
        assert await submission.resumes(run_id) == 0  # it is being settled
        executions.end(taken)
    await applier.apply(signal_id)
    assert (await submission.outcome(signal_id)).status == "applied"
    assert await submission.resumes(run_id) == 1
