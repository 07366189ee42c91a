"""What goes wrong with Prefect's resume API, each trap shown on a real server and then handled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from typing import Any

import pytest
from prefect import flow
from prefect.flow_runs import pause_flow_run
from prefect.runtime import flow_run

from events.errors import TransientError
from services.prefect_api.run_view import RunView
from services.signals.applier import Applier
from sluice.protocol import form_key, keyset, pause_key
from tests.integration.signals.conftest import Desk, in_thread, new_key, settings
from tests.integration.signals.test_waits import Running
from tests.support import waiting_flows as flows
from tests.support.waiting import eventually

APPROVAL = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}

STARTED: list[str] = []


@flow
def plainly_pausing(with_input: bool) -> Any:
    STARTED.append(str(flow_run.id))
    return pause_flow_run(wait_for_input=flows.Approval if with_input else None, timeout=30, poll_interval=1)


async def test_prefect_answers_a_resume_of_a_running_run_with_200(resumer: Desk) -> None:
    run_id = await resumer.park("unused")
    await resumer.ask(run_id=run_id)
    answer = await resumer.api.request("POST", f"/flow_runs/{run_id}/resume", json={})
    assert answer["status"] == "ABORT"
    assert (await resumer.ask(run_id=run_id)).status == "buffered"


async def test_prefect_answers_a_resume_of_an_unknown_run_with_500(resumer: Desk) -> None:
    run_id = str(uuid.uuid4())
    with pytest.raises(TransientError, match="500"):
        await resumer.api.request("POST", f"/flow_runs/{run_id}/resume", once=True, json={})
    record = await resumer.ask(run_id=run_id)
    assert (record.status, run_id in record.reason) == ("unknown-run", True)


async def test_a_signal_in_the_gap_before_the_schema_is_saved_is_applied_after_it(resumer: Desk) -> None:
    """Prefect's own pause saves the schema only once the run is Paused."""
    run_id = await resumer.park("unused")
    await resumer.ask(run_id=run_id)
    details = {"pause_key": "1", "run_input_keyset": {"schema": "paused-1-schema", "response": "paused-1-response"}}
    await resumer.set_state(run_id, "PAUSED", name="Paused", state_details=details)
    signal_id = await resumer.send(run_id=run_id, input={"ok": True})

    async def claimed() -> bool:
        record = await resumer.store.get(signal_id)
        return record is not None and bool(record.marks)

    await eventually(claimed)
    body = {"key": "paused-1-schema", "value": json.dumps(APPROVAL)}
    await resumer.api.request("POST", f"/flow_runs/{run_id}/input", json=body)
    assert (await resumer.outcome(signal_id)).status == "applied"
    assert (await resumer.runs.inputs(run_id, ["paused-1-response"])) == {"paused-1-response": {"ok": True}}


async def test_a_wait_of_sluice_has_its_form_before_it_is_paused(resumer: Desk) -> None:
    running = Running(resumer, flows.approving, new_key(), input=flows.Approval)

    async def paused() -> RunView | None:
        run = await resumer.runs.read(await running.run_id())
        return run if run.waiting else None

    run = await eventually(paused)
    assert run
    assert await resumer.runs.inputs(run.run_id, [form_key(run.pause_key or "")])
    await resumer.send(run_id=run.run_id, input={"approved": True})
    await running.answer()


@pytest.mark.parametrize("with_input", [False, True])
async def test_prefects_own_pause_is_resumed_by_run_id(resumer: Desk, with_input: bool) -> None:
    ending = in_thread(lambda: plainly_pausing(with_input))
    before = len(STARTED)
    run_id = (await eventually(lambda: asyncio.sleep(0, STARTED[before:])))[0]
    await resumer.waiting(run_id)
    record = await resumer.ask(run_id=run_id, input={"approved": True} if with_input else {})
    assert record.status == "applied"
    answer = await asyncio.wait_for(ending, 20)
    assert (answer.approved if with_input else answer) is (True if with_input else None)


async def test_a_second_answer_can_be_stored_for_prefects_own_pause_of_a_run_that_was_tried_again(
    resumer: Desk,
) -> None:
    """Prefect's pause keys begin anew with a retry while the first answer is still there: its server then fails."""
    run_id = await resumer.park("unused")
    assert (await resumer.ask(run_id=run_id, input={"n": 0})).status == "applied"
    body = {"key": "pause-1-schema", "value": json.dumps({"type": "object", "properties": {}})}
    await resumer.api.request("POST", f"/flow_runs/{run_id}/input", json=body)
    view = {"schema": "pause-1-schema", "response": "pause-1-response"}
    for number in (1, 2):
        await resumer.set_state(run_id, "RUNNING")
        await resumer.set_state(run_id, "PAUSED", state_details={"pause_key": "1", "run_input_keyset": view})
        record = await resumer.outcome(await resumer.send(run_id=run_id, input={"n": number}))
        assert record.status == "applied", record.reason
    assert await resumer.runs.inputs(run_id, ["pause-1-response"]) == {"pause-1-response": {"n": 2}}


async def test_the_answer_of_another_resume_of_this_moment_is_not_taken_for_an_old_one(submission: Desk) -> None:
    run_id = await submission.park("unused")
    view = {"schema": "pause-1-schema", "response": "pause-1-response"}
    await submission.set_state(run_id, "PAUSED", state_details={"pause_key": "1", "run_input_keyset": view})
    schema = {"type": "object", "properties": {}}
    for key, value in (("pause-1-schema", schema), ("pause-1-response", {"n": 1})):
        body = {"key": key, "value": json.dumps(value)}
        await submission.api.request("POST", f"/flow_runs/{run_id}/input", json=body)
    with pytest.raises(TransientError):
        await submission.runs.resume(await submission.runs.read(run_id), {"n": 2})
    assert await submission.runs.inputs(run_id, ["pause-1-response"]) == {"pause-1-response": {"n": 1}}


async def test_an_answer_stands_though_the_run_is_paused_again_in_its_wait_just_then(resumer: Desk) -> None:
    """As when its executor is stopped: it makes the run a suspended one."""
    run_id = await resumer.park("unused", name="again")
    assert (await resumer.ask(run_id=run_id, input={"n": 1})).status == "applied"
    pause = pause_key("again", 1)
    details = {"pause_key": pause, "run_input_keyset": keyset(pause, keys=["unused"])}
    await resumer.set_state(run_id, "PAUSED", state_details=details)
    record = await resumer.ask(run_id=run_id, input={"n": 2})
    assert record.status == "duplicate"
    assert (await resumer.runs.read(run_id)).state_type == "RUNNING"
    assert await resumer.answer(run_id, "again") == {"n": 1}


async def test_of_a_signal_and_prefects_own_resume_exactly_one_wins(resumer: Desk) -> None:
    for _ in range(6):
        run_id = await resumer.park(new_key())

        async def elsewhere(run_id: str = run_id) -> str:
            body = {"run_input": {"from": "ui"}}
            with contextlib.suppress(TransientError):  # the loser's transaction may fail as a whole
                return str(
                    (await resumer.api.request("POST", f"/flow_runs/{run_id}/resume", once=True, json=body))["status"]
                )
            return "FAILED"

        status, record = await asyncio.gather(elsewhere(), resumer.ask(run_id=run_id, input={"from": "signal"}))
        record = await resumer.outcome(record.signal.id, of=("applied", "duplicate", "buffered"))
        assert (status == "ACCEPT") != (record.status == "applied")
        assert await resumer.answer(run_id) == {"from": "ui" if status == "ACCEPT" else "signal"}
        assert await resumer.resumes(run_id) == 1


async def test_of_a_signal_and_a_cancellation_one_wins(resumer: Desk) -> None:
    for _ in range(4):
        run_id = await resumer.park(new_key())
        cancelling = resumer.api.request(
            "POST", f"/flow_runs/{run_id}/set_state", json={"state": {"type": "CANCELLED", "name": "Cancelled"}}
        )
        _, record = await asyncio.gather(cancelling, resumer.ask(run_id=run_id, input={"n": 1}))
        assert record.status in {"applied", "rejected"}
        assert (await resumer.answer(run_id) is not None) == (record.status == "applied")


async def test_of_a_signal_and_the_timeout_one_wins_and_both_sides_agree(resumer: Desk) -> None:
    """The signal comes as the wait ends; what the flow got and what the sender is told must fit together."""
    for number in range(6):
        running = Running(resumer, flows.approving, new_key(), timeout=0.4, default="nobody")
        run_id = await running.waits()
        entered = (await resumer.runs.read(run_id)).entered
        # around the end of the wait
        await asyncio.sleep(max(0.0, 0.4 - 0.04 + number * 0.012 - (await seconds_since(entered))))
        record = await resumer.ask(run_id=run_id)
        answer = await running.answer()
        if record.status == "buffered":
            record = await resumer.outcome(record.signal.id)
        assert (answer == {}) == (record.status == "applied"), (answer, record.status, record.reason)


async def seconds_since(moment: Any) -> float:
    from datetime import UTC, datetime

    return float((datetime.now(UTC) - moment).total_seconds())


async def test_a_call_that_hangs_is_given_up_and_told_apart_afterwards(resumer: Desk) -> None:
    """The resume reaches Prefect, its answer never comes: the run's past says that it was ours."""
    run_id = await resumer.park(new_key())
    applier = Applier(store=resumer.store, runs=Deaf(resumer), hints=resumer.hints, settings=settings(call_seconds=0.5))
    signal_id = await resumer.send_quietly(run_id=run_id, input={"n": 1})
    await applier.apply(signal_id)
    record = await resumer.outcome(signal_id)
    assert record.status == "applied"
    assert await resumer.resumes(run_id) == 1


class Deaf:
    """Asks Prefect and does not hear the first answer to a resume."""

    def __init__(self, submission: Desk) -> None:
        self._runs = submission.runs
        self._heard = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runs, name)

    async def resume(self, run: RunView, value: Any) -> Any:
        answer = await self._runs.resume(run, value)
        if not self._heard:
            self._heard = True
            await asyncio.sleep(60)  # it is killed first
        return answer
