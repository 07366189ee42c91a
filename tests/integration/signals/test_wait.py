"""A wait is ended by an answer, a rejection or its time-out, and by nothing else: see docs/waits.md."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect import flow, get_client

import sluice
from events.errors import RejectedEvent
from services.prefect_api.run_calls import cancel_run
from services.prefect_api.run_view import RunView
from sluice.protocol import DEADLINE, keyset, pause_key, schema_key
from tests.integration.signals.conftest import Desk, in_thread, new_key
from tests.integration.signals.deployed import Deployed
from tests.integration.signals.test_waits import Running
from tests.support import waiting_flows as flows
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


async def statuses(submission: Desk, run_id: str, *wanted: str) -> list[str]:
    async def probe() -> list[str]:
        found = [record.status for record in await submission.store.of_run(run_id)]
        return found if set(found) >= set(wanted) else []

    return await eventually(probe, what=f"{wanted} are listed for the run")


async def test_a_run_that_is_set_to_running_by_hand_waits_again(resumer: Desk) -> None:
    key = new_key()
    running = Running(resumer, flows.approving, key, input=flows.Approval)
    run_id = await running.waits()
    first = await resumer.runs.read(run_id)
    await resumer.set_state(run_id, "RUNNING", name="Running")
    await running.waits(f"{first.pause_key}--e2")
    assert await statuses(resumer, run_id, "unanswered") == ["unanswered"]
    (record,) = await resumer.store.of_run(run_id)
    assert record.reason == "the wait was left without an answer, for Running: it is still to be answered"
    assert record.signal.by is None
    assert (await resumer.state(run_id))["tags"] == [f"awaits:{key}"]
    assert (await resumer.ask(key=key, input={"approved": True})).status == "applied"
    assert await running.answer() == flows.Approval(approved=True)


async def test_a_wait_that_is_left_before_anybody_has_looked_at_it_is_listed(resumer: Desk) -> None:
    run_id = await resumer.park(new_key())
    await resumer.set_state(run_id, "SCHEDULED", name="AwaitingRetry")
    assert await statuses(resumer, run_id, "unanswered") == ["unanswered"]


@pytest.mark.parametrize("force", [False, True])
async def test_a_run_that_is_scheduled_by_hand_while_it_waits_waits_again(deployed: Deployed, force: bool) -> None:
    await deployed.create()
    await deployed.start()
    first = await deployed.waits()
    await deployed.kill()
    await deployed.set_state("SCHEDULED", "AwaitingRetry", force=force)
    await deployed.start()
    second = await deployed.waits(other_than=first.state_id)
    assert second.pause_key == f"{first.pause_key}--e2"
    assert await deployed.submission.answer(deployed.run_id, deployed.key) is None
    assert (await deployed.submission.ask(key=deployed.key, input={"n": 1})).status == "applied"
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["{'n': 1}"]
    assert sorted(await statuses(deployed.submission, deployed.run_id, "unanswered")) == ["applied", "unanswered"]


async def test_a_process_whose_run_is_scheduled_while_it_waits_leaves_it_to_the_next(deployed: Deployed) -> None:
    await deployed.create()
    old = await deployed.start()
    first = await deployed.waits()
    await deployed.set_state("SCHEDULED", "AwaitingRetry")
    assert await old.ended() == 0
    await deployed.start()
    await deployed.waits(other_than=first.state_id)
    await deployed.submission.ask(key=deployed.key, input={"n": 1})
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["{'n': 1}"]


async def test_the_subflow_of_a_parent_that_is_tried_again_waits_again(deployed: Deployed) -> None:
    await deployed.create(flows.waiting_below)
    await deployed.start()
    first = await deployed.child()
    await deployed.kill()
    await deployed.set_state("CRASHED", "Crashed")
    await deployed.set_state("SCHEDULED", "AwaitingRetry")
    await deployed.start()
    again = await deployed.waits(other_than=first.state_id, run_id=first.run_id)
    assert deployed.answers == []
    assert (await deployed.submission.ask(key=deployed.key, input={"n": 1})).status == "applied"
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["{'n': 1}"]
    assert again.pause_key == f"{first.pause_key}--e2"
    assert "unanswered" in await statuses(deployed.submission, first.run_id, "unanswered", "applied")


async def test_an_answer_that_came_just_before_a_crash_is_found_and_used_once(deployed: Deployed) -> None:
    await deployed.create()
    process = await deployed.start()
    await deployed.waits()
    process.send_signal(19)  # SIGSTOP: it is there, and hears nothing
    assert (await deployed.submission.ask(key=deployed.key, input={"n": 1})).status == "applied"
    await deployed.kill()
    await deployed.set_state("CRASHED", "Crashed")
    assert (await deployed.submission.ask(run_id=deployed.run_id)).reason == "the run is over: Crashed"
    assert (await deployed.submission.ask(key=deployed.key, input={"n": 2})).status == "buffered"
    await deployed.set_state("SCHEDULED", "AwaitingRetry")
    await deployed.start()
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["{'n': 1}"]


async def test_a_signal_that_comes_while_the_run_is_crashed_is_kept_for_its_next_attempt(deployed: Deployed) -> None:
    await deployed.create()
    await deployed.start()
    await deployed.waits()
    await deployed.kill()
    await deployed.set_state("CRASHED", "Crashed")
    kept = await deployed.submission.ask(key=deployed.key, input={"n": 1})
    assert kept.status == "buffered"
    await deployed.set_state("SCHEDULED", "AwaitingRetry")
    await deployed.start()
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["{'n': 1}"]
    assert (await deployed.submission.outcome(kept.signal.id)).status == "applied"


async def test_a_signal_for_all_that_came_while_a_run_was_started_again_reaches_it(deployed: Deployed) -> None:
    await deployed.create()
    await deployed.start()
    await deployed.waits()
    other = await deployed.submission.park(deployed.key)
    await deployed.kill()
    await deployed.set_state("SCHEDULED", "AwaitingRetry")
    assert (await deployed.submission.ask(key=deployed.key, input={"n": 1})).status == "applied"
    assert await deployed.submission.answer(other) == {"n": 1}
    await deployed.start()
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["{'n': 1}"]


async def test_a_paused_run_that_is_made_a_suspended_one_waits_on_and_is_answered(deployed: Deployed) -> None:
    await deployed.create(timeout=3600)
    await deployed.start()
    first = await deployed.waits()
    await deployed.suspended(first)
    waits_on = await deployed.waits(other_than=first.state_id)
    assert (waits_on.wait_id, waits_on.since) == (first.wait_id, first.since)
    assert (await deployed.submission.ask(key=deployed.key, input={"n": 1})).status == "applied"
    assert (await deployed.submission.ask(run_id=deployed.run_id, input={"n": 2})).status == "buffered"
    await deployed.resuming()
    await deployed.start()
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["{'n': 1}"]
    assert "unanswered" not in await statuses(deployed.submission, deployed.run_id, "applied")


async def test_an_answer_that_comes_as_a_run_is_made_a_suspended_one_is_not_lost(deployed: Deployed) -> None:
    await deployed.create()
    process = await deployed.start()
    first = await deployed.waits()
    process.send_signal(19)
    assert (await deployed.submission.ask(key=deployed.key, input={"n": 1})).status == "applied"
    await deployed.suspended(first)
    await deployed.resuming()
    await deployed.start()
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["{'n': 1}"]


async def test_a_run_that_is_paused_again_by_hand_in_its_wait_still_times_out(resumer: Desk) -> None:
    running = Running(resumer, flows.approving, new_key(), timeout=4, default="nobody")
    run_id = await running.waits()
    run = await resumer.runs.read(run_id)
    details = {"pause_key": run.pause_key, "run_input_keyset": dict(run.keyset)}
    await resumer.set_state(run_id, "PAUSED", name="Paused", state_details=details)
    assert await running.answer() == "nobody"


async def test_a_run_that_was_killed_between_its_pause_and_its_form_is_answered(deployed: Deployed) -> None:
    await deployed.create(flows.killed_before_its_form, suspend=True)
    killed = await deployed.start()
    await killed.ended()
    assert (await deployed.waits()).suspended
    assert (await deployed.submission.ask(key=deployed.key, input={"n": 1})).status == "applied"
    await deployed.resuming()
    await deployed.start()
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["{'n': 1}"]


async def test_the_form_of_a_run_without_a_process_is_shown_without_any_signal(deployed: Deployed) -> None:
    await deployed.create(flows.killed_before_its_form, suspend=True)
    killed = await deployed.start()
    await killed.ended()
    run = await deployed.waits()
    shown = [run.keyset["description"], run.keyset["schema"]]
    runs = deployed.submission.runs

    async def probe() -> bool:
        return set(await runs.inputs(run.run_id, shown)) == set(shown)

    await eventually(probe, what="the form is shown")
    answer = await deployed.submission.api.request(
        "POST", f"/flow_runs/{run.run_id}/resume", json={"run_input": {"n": 1}}
    )
    assert answer["status"] == "ACCEPT"


async def test_a_form_that_is_not_shown_yet_holds_for_the_first_signal(submission: Desk, resumer: Desk) -> None:
    """The signal may come in the moment between the pause and the form, which the process is about to show."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    key = new_key()
    run_id = await submission.park(key, schema=schema, shown=False)
    unfit = await resumer.ask(run_id=run_id, input={"n": "one"})
    assert (unfit.status, unfit.reason) == ("rejected", "the field 'n': 'one' is not of type 'integer'")
    assert (await resumer.ask(key=key, input={"n": 1})).status == "applied"
    assert await resumer.answer(run_id) == {"n": 1}


async def test_a_wait_that_an_earlier_version_began_is_answered(deployed: Deployed) -> None:
    """Its form takes an empty answer and was never kept, its keyset tells neither since when nor how it waits."""
    await deployed.create()
    pause = pause_key(deployed.key, 1)
    api = deployed.submission.api
    schema = {"type": "object", "title": "Input", "properties": {}, "additionalProperties": True}
    body = {"key": schema_key(pause), "value": json.dumps(schema)}
    await api.request("PATCH", f"/flow_runs/{deployed.run_id}", json={"tags": [f"awaits:{deployed.key}"]})
    await deployed.set_state("RUNNING", "Running", force=True)
    old = keyset(pause, keys=[deployed.key])
    details = {"pause_key": pause, "pause_reschedule": True, "run_input_keyset": old}
    await deployed.set_state("PAUSED", "Suspended", state_details=details)
    await api.request("POST", f"/flow_runs/{deployed.run_id}/input", json=body)
    assert (await deployed.submission.ask(key=deployed.key, input={"n": 1})).status == "applied"
    await deployed.resuming()
    await deployed.start()
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["{'n': 1}"]


async def test_the_time_of_a_wait_counts_from_its_first_entry(deployed: Deployed) -> None:
    await deployed.create(timeout=3600)
    await deployed.start()
    first = await deployed.waits()
    await deployed.kill()
    await deployed.set_state("SCHEDULED", "AwaitingRetry")
    await deployed.start()
    second = await deployed.waits(other_than=first.state_id)
    assert abs(_deadline(second) - _deadline(first)) < timedelta(seconds=5)


def _deadline(run: RunView) -> datetime:
    return datetime.fromisoformat(run.keyset[DEADLINE])


async def test_a_wait_whose_time_ends_while_it_is_suspended_times_out(deployed: Deployed) -> None:
    await deployed.create(timeout=3600, default="nobody")
    await deployed.start()
    over = datetime.now(UTC) + timedelta(seconds=2)
    await deployed.suspended(await deployed.waits(), **{DEADLINE: over.isoformat()})
    await deployed.resuming()
    await deployed.start()
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["'nobody'"]


async def test_a_wait_whose_time_ends_while_nobody_runs_it_times_out_when_it_comes_back(deployed: Deployed) -> None:
    await deployed.create(timeout=20, default="nobody")  # long enough to be killed in it
    await deployed.start()
    first = await deployed.waits()
    await deployed.kill()
    await deployed.set_state("SCHEDULED", "AwaitingRetry")
    await eventually(lambda: asyncio.sleep(0, datetime.now(UTC) > _deadline(first)), what="the time is over")
    await deployed.start()
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["'nobody'"]


@pytest.mark.parametrize("model", [None, flows.Approval])
async def test_an_empty_resume_is_refused_with_what_to_send(resumer: Desk, model: Any) -> None:
    running = Running(resumer, flows.approving, new_key(), input=model)
    run_id = await running.waits()
    for body in ({}, {"run_input": {}}):
        answer = await resumer.api.request("POST", f"/flow_runs/{run_id}/resume", json=body)
        assert answer["status"] == "REJECT"
    if model is None:
        assert """'an answer, such as {"go_on": …}' is a required property""" in answer["details"]["reason"]
    assert (await resumer.runs.read(run_id)).waiting
    await eventually(lambda: resumer.hints.wait_of(run_id), what="the run was heard to wait")
    filled = {"go_on": True} if model is None else {"approved": True}
    await resumer.api.request("POST", f"/flow_runs/{run_id}/resume", json={"run_input": filled})
    assert await running.answer() == ({} if model is None else flows.Approval(approved=True))
    assert [record.signal.by for record in await resumer.store.of_run(run_id)] == [
        "Prefect UI or API"
    ] or await statuses(resumer, run_id, "applied")


async def test_a_field_that_the_form_does_not_have_is_named(resumer: Desk) -> None:
    key = new_key()
    running = Running(resumer, flows.approving, key, input=flows.Approval)
    await running.waits()
    record = await resumer.ask(key=key, input={"approved": True, "extra": 1})
    assert (record.status, record.reason) == ("rejected", "there is no field 'extra'; it has approved, by")
    await resumer.send(key=key, input={"approved": True})
    await running.answer()


@pytest.mark.parametrize("flow", [flows.asking_twice, flows.asking_twice_at_once])
async def test_waits_at_the_same_time_are_answered_one_after_the_other(resumer: Desk, flow: Any) -> None:
    keys = [new_key(), new_key()]
    sent = [await resumer.send(key=key, input={"n": number}) for number, key in enumerate(keys)]
    assert await Running(resumer, flow, keys).answer() == [{"n": 0}, {"n": 1}]
    for signal_id in sent:
        assert (await resumer.outcome(signal_id)).status == "applied"


async def test_a_run_that_is_paused_otherwise_refuses_to_wait(resumer: Desk) -> None:
    label = new_key()

    def waits_while_paused() -> Any:
        @flow
        def elsewhere() -> Any:
            flows.began(label)
            body = {"state": {"type": "PAUSED", "name": "Paused"}, "force": True}
            with get_client(sync_client=True) as client:
                client.request("POST", f"/flow_runs/{flows.STARTED[label][-1]}/set_state", json=body)
            return sluice.wait_for_signal(label)

        return elsewhere()

    with pytest.raises(RuntimeError, match="one wait at a time"):
        await asyncio.wait_for(in_thread(waits_while_paused), 30)


async def test_the_message_of_a_wait_for_all_says_and(resumer: Desk) -> None:
    running = Running(resumer, flows.both, ["left", "right"], "all")
    run_id = await running.waits()
    assert "the key 'left' and 'right'" in (await resumer.state(run_id))["message"]
    await resumer.send(run_id=run_id)
    await running.answer()


@pytest.mark.parametrize("key", ["PO-7", " two words ", "a/b%20c?", "Müller & Söhne", "订单-7", "👩‍💻", "x" * 200])
async def test_keys_are_the_users_texts(resumer: Desk, key: str) -> None:
    other = await resumer.park(key.swapcase() if key.swapcase() != key else key + "-")
    running = Running(resumer, flows.approving, key)
    run_id = await running.waits()
    assert (await resumer.state(run_id))["tags"] == [f"awaits:{key}"]
    assert (await resumer.ask(key=key, input={"n": 1}, deliver="one")).status == "applied"
    assert await running.answer() == {"n": 1}
    assert await resumer.resumes(other) == 0


@pytest.mark.parametrize("kind", ["CANCELLED", "CRASHED", "FAILED"])
async def test_the_tag_goes_though_no_process_takes_it_away(resumer: Desk, kind: str) -> None:
    run_id = await resumer.park(new_key())
    await _heard(resumer, run_id)
    await resumer.api.request("PATCH", f"/flow_runs/{run_id}", json={"tags": ["mine", "awaits:x"]})
    await resumer.set_state(run_id, kind, name=kind.title())
    await _tags(resumer, run_id, ["mine"])


async def test_the_tag_goes_with_prefects_own_time_out(resumer: Desk) -> None:
    running = Running(resumer, flows.out_of_time, new_key())
    run_id = await running.waits()
    with contextlib.suppress(TimeoutError):
        await running.answer()
    await _tags(resumer, run_id, [])


async def _heard(submission: Desk, run_id: str) -> None:
    await eventually(lambda: submission.hints.may_be_tagged(run_id), what="the run was heard to wait")


async def _tags(submission: Desk, run_id: str, tags: list[str]) -> None:
    async def probe() -> bool:
        return list((await submission.state(run_id))["tags"]) == tags

    await eventually(probe, what=f"the tags are {tags}")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e300, timedelta.max])
@pytest.mark.parametrize("option", ["timeout", "remind_after", "poll_seconds"])
async def test_a_duration_that_is_none_is_refused_before_the_run_is_paused(
    prefect_url: str, option: str, seconds: Any
) -> None:
    with pytest.raises(ValueError, match=f"`{option}` must be more than 0 seconds and at most 100 years"):
        await sluice.wait_for_signal_async("k", **{option: seconds})


async def test_a_key_with_a_control_character_is_refused_at_the_door(submission: Desk) -> None:
    with pytest.raises(RejectedEvent, match=r"the key 'a\\x00b' contains the control character U\+0000"):
        await submission.send(key="a\x00b")


@pytest.mark.parametrize(("kind", "name"), [("PAUSED", "Suspended"), ("SCHEDULED", "Scheduled")])
async def test_cancelling_a_run_without_a_process_keeps_the_reason(deployed: Deployed, kind: str, name: str) -> None:
    await deployed.create()
    details = {"pause_key": "1", "pause_reschedule": True} if kind == "PAUSED" else {}
    await deployed.set_state(kind, name, force=True, state_details=details)
    assert await cancel_run(deployed.submission.api, deployed.run_id, reason="no budget") == "Cancelled"
    state = await deployed.submission.state(deployed.run_id)
    assert (state["type"], state["message"]) == ("CANCELLED", "no budget")
