"""A flow waits, a signal comes, the flow goes on: each way to address it, and each outcome."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from pydantic import BaseModel

import sluice
from tests.integration.signals.conftest import Desk, new_key
from tests.support.waiting import eventually


class Approval(BaseModel):
    approved: bool
    by: str = "nobody"


@flow
async def approving(key: str | None, started: asyncio.Future[str], **options: Any) -> Any:
    started.set_result(flow_run.id)
    return await sluice.wait_for_signal(key, input=Approval, **options)


def begin(**options: Any) -> tuple[asyncio.Task[Any], asyncio.Future[str]]:
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    options.setdefault("key", None)
    return asyncio.create_task(approving(started=started, **options)), started


async def test_a_signal_by_key_resumes_the_run_with_its_input(resumer: Desk) -> None:
    key = new_key()
    task, started = begin(key=key)
    run_id = await started
    await resumer.waiting(run_id)
    assert f"awaits:{key}" in (await resumer.state(run_id))["tags"]

    record = await resumer.ask(key=key, input={"approved": True, "by": "ann"})

    assert record.status == "applied"
    assert await task == Approval(approved=True, by="ann")
    ended = {"type": "COMPLETED", "message": None, "tags": []}
    await eventually(lambda: _is(resumer, run_id, ended))


async def _is(resumer: Desk, run_id: str, wanted: dict[str, Any]) -> bool:
    return (await resumer.state(run_id)) == wanted


async def test_a_signal_by_run_id_resumes_the_run(resumer: Desk) -> None:
    task, started = begin()
    run_id = await started
    await resumer.waiting(run_id)
    assert (await resumer.ask(run_id=run_id, input={"approved": False})).status == "applied"
    assert await task == Approval(approved=False)


async def test_an_early_signal_is_buffered_and_applied_when_the_run_waits(resumer: Desk) -> None:
    key = new_key()
    record = await resumer.ask(key=key, input={"approved": True})
    assert record.status == "buffered"
    task, _ = begin(key=key)
    assert await asyncio.wait_for(task, 15) == Approval(approved=True)
    assert (await resumer.outcome(record.signal.id)).status == "applied"


async def test_input_that_does_not_fit_is_rejected_and_the_run_goes_on_waiting(resumer: Desk) -> None:
    key = new_key()
    task, started = begin(key=key)
    run_id = await started
    await resumer.waiting(run_id)
    record = await resumer.ask(key=key, input={"approved": "perhaps"})
    assert record.status == "rejected"
    assert "perhaps" in record.reason
    assert (await resumer.state(run_id))["type"] == "PAUSED"
    assert (await resumer.ask(key=key, input={"approved": True})).status == "applied"
    assert (await task).approved


async def test_an_unknown_run_is_said_to_be_unknown(resumer: Desk) -> None:
    record = await resumer.ask(run_id=str(uuid.uuid4()))
    assert record.status == "unknown-run"
