"""What `wait_for_signal` does in flows: sync and async, in loops, tasks and subflows, several keys, time, refusals."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
from prefect.exceptions import Abort

import sluice
from services.prefect_api.waiting import Undone
from sluice.protocol import addressed, pause_key
from tests.integration.signals.conftest import Desk, in_thread, new_key
from tests.support import waiting_flows as flows
from tests.support.waiting import eventually


class Running:
    """A flow in a thread of its own."""

    def __init__(self, submission: Desk, flow: Callable[..., Any], *args: Any, **options: Any) -> None:
        self.label = new_key()
        self._submission = submission
        if getattr(flow, "isasync", False):
            self.ending = asyncio.ensure_future(flow(self.label, *args, **options))
        else:
            self.ending = in_thread(lambda: flow(self.label, *args, **options))

    async def run_id(self) -> str:
        async def probe() -> list[str]:
            known = flows.STARTED.get(self.label, [])
            assert known or not self.ending.done(), self.ending
            return known

        return (await eventually(probe, what="the flow began"))[-1]

    async def waits(self, pause: str | None = None) -> str:
        run_id = await self.run_id()
        await self._submission.waiting(run_id, pause)
        return run_id

    async def answer(self) -> Any:
        return await asyncio.wait_for(self.ending, 20)


async def test_a_sync_flow_gets_an_instance_of_its_model(resumer: Desk) -> None:
    key = new_key()
    running = Running(resumer, flows.approving, key, input=flows.Approval)
    await running.waits()
    await resumer.send(key=key, input={"approved": True})
    assert await running.answer() == flows.Approval(approved=True, by="nobody")


@pytest.mark.parametrize("flow", ["approving", "approving_async"])
async def test_a_run_loses_its_tag_though_its_process_ends_with_the_answer(resumer: Desk, flow: str) -> None:
    key, label = new_key(), new_key()
    call = f"flows.{flow}({label!r}, {key!r})"
    if flow == "approving_async":
        call = f"asyncio.run({call})"
    # As beside a server that is slow: the flow has ended long before its tag is away.
    slow = "async def slowly(self): await asyncio.sleep(1); await tidy(self)\nWait.tidy = slowly"
    imports = "import asyncio\nfrom sluice.wait import Wait\nfrom tests.support import waiting_flows as flows"
    code = f"{imports}\ntidy = Wait.tidy\n{slow}\n{call}"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    (run,) = await eventually(lambda: resumer.runs.waiting_for([key]), what="the run waits")
    await resumer.send(key=key, input={"n": 1})
    assert await asyncio.wait_for(process.wait(), 30) == 0
    state = await resumer.state(run.run_id)
    assert (state["type"], state["tags"]) == ("COMPLETED", [])


async def test_an_answer_that_only_the_model_refuses_lets_the_run_wait_again(resumer: Desk) -> None:
    key = new_key()
    running = Running(resumer, flows.approving, key, input=flows.Even)
    await running.waits()
    assert (await resumer.ask(key=key, input={"n": 3})).status == "applied"
    run_id = await running.waits(pause_key(key, 2))
    assert "the last answer did not fit: n: Value error, it must be even" in (await resumer.state(run_id))["message"]
    await resumer.send(key=key, input={"n": 4})
    assert await running.answer() == flows.Even(n=4)


async def test_an_async_flow_goes_on_turning_while_it_waits(resumer: Desk) -> None:
    key = new_key()
    running = Running(resumer, flows.approving_async, key)
    await running.waits()
    await resumer.send(key=key, input={"any": ["thing"]})
    answer, turns = await running.answer()
    assert answer == {"any": ["thing"]}
    assert turns > 3


async def test_a_sync_flow_on_the_thread_of_a_loop_waits_too(resumer: Desk) -> None:
    key = new_key()
    await resumer.ask(key=key)
    running = Running(resumer, lambda label, key: asyncio.run(flows.calls_a_sync_flow(label, key)), key)
    assert await running.answer() == {}


async def test_a_flow_may_wait_in_a_task_or_in_a_subflow(resumer: Desk) -> None:
    for flow in (flows.asking_in_a_task, flows.parent):
        key = new_key()
        running = Running(resumer, flow, key)
        run_id = await running.waits()
        await resumer.send(run_id=run_id, input={"n": 1})
        assert await running.answer() == {"n": 1}


async def test_a_loop_waits_under_one_key_again_and_again(resumer: Desk) -> None:
    key = new_key()
    running = Running(resumer, flows.looping, key, 3)
    for number in range(3):
        await running.waits(f"sluice-wait-{number + 1}-{key}")
        assert (await resumer.ask(key=key, input={"n": number})).status == "applied"
    assert await running.answer() == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_a_burst_before_the_first_wait_feeds_a_loop_in_order(resumer: Desk) -> None:
    key = new_key()
    for number in range(3):
        assert (await resumer.ask(key=key, input={"n": number})).status == "buffered"
    assert await Running(resumer, flows.looping, key, 3).answer() == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_any_of_several_keys_resumes_and_says_which(resumer: Desk) -> None:
    keys = [new_key(), new_key()]
    running = Running(resumer, flows.both, keys, "any")
    await running.waits()
    await resumer.send(key=keys[1], input={"n": 1})
    assert await running.answer() == {keys[1]: {"n": 1}}


async def test_all_of_several_keys_are_needed_in_any_order(resumer: Desk) -> None:
    keys = [new_key(), new_key(), new_key()]
    await resumer.ask(key=keys[2], input={"n": 2})
    running = Running(resumer, flows.both, keys, "all")

    async def left() -> bool:
        tags = (await resumer.state(await running.run_id()))["tags"]
        return sorted(tags) == sorted(f"awaits:{key}" for key in keys[:2])

    await eventually(left, what="the early one is taken")
    await resumer.send(key=keys[1], input={"n": 1})
    await resumer.send(key=keys[0], input={"n": 0})
    assert await running.answer() == {keys[number]: {"n": number} for number in range(3)}


async def test_who_resumes_by_run_id_answers_for_every_key(resumer: Desk) -> None:
    keys = [new_key(), new_key()]
    running = Running(resumer, flows.both, keys, "all")
    await resumer.send(run_id=await running.waits(), input={"n": 1})
    assert await running.answer() == {key: {"n": 1} for key in keys}


async def test_nobody_in_time_gives_the_default_or_raises(resumer: Desk) -> None:
    for default in (None, {"approved": False}):
        running = Running(resumer, flows.approving, new_key(), timeout=0.3, default=default)
        assert await running.answer() == default
        state = await resumer.state(await running.run_id())
        assert (state["type"], state["tags"]) == ("COMPLETED", [])
    running = Running(resumer, flows.approving, "k", timeout=0.3)
    with pytest.raises(sluice.SignalTimeout, match=r"no signal for 'k' came within 0\.3 s"):
        await running.answer()
    state = await resumer.state(await running.run_id())
    assert state["type"] == "FAILED"
    assert "no signal for 'k'" in state["message"]


async def test_a_reminder_is_an_event_on_the_run(resumer: Desk) -> None:
    running = Running(resumer, flows.approving, remind_after=0.2)
    run_id = await running.waits()
    await resumer.told(run_id, "reminder")
    await resumer.send(run_id=run_id)
    await running.answer()


async def test_a_rejection_fails_the_run_with_who_and_why(resumer: Desk) -> None:
    key = new_key()
    running = Running(resumer, flows.approving, key, input=flows.Approval)
    run_id = await running.waits()
    assert (await resumer.ask(key=key, action="reject", by="ann", reason="too dear")).status == "applied"
    with pytest.raises(sluice.SignalRejected, match="rejected by ann: too dear"):
        await running.answer()
    state = await resumer.state(run_id)
    assert (state["type"], state["tags"]) == ("FAILED", [])
    assert "rejected by ann: too dear" in state["message"]


async def test_a_rejection_may_be_caught(resumer: Desk) -> None:
    key = new_key()
    await resumer.ask(key=key, action="reject", by="ann", reason="no")
    assert await Running(resumer, flows.caught, key).answer() == "ann said no"


async def test_a_rejection_cancels_the_run_that_chose_so(resumer: Desk) -> None:
    key = new_key()
    running = Running(resumer, flows.cancelled_when_rejected, key)
    run_id = await running.waits()
    await resumer.send(key=key, action="reject", by="ann", reason="too dear")
    with pytest.raises(Abort):
        await running.answer()
    state = await resumer.state(run_id)
    assert (state["type"], state["message"], state["tags"]) == ("CANCELLED", "rejected by ann: too dear", [])


async def test_prefects_own_resume_answers_with_a_form(resumer: Desk) -> None:
    running = Running(resumer, flows.approving, new_key(), input=flows.Approval)
    run_id = await running.waits()
    view = await resumer.runs.read(run_id)
    form = await resumer.runs.inputs(run_id, [view.keyset["schema"], view.keyset["description"]])
    assert form[view.keyset["schema"]]["required"] == ["approved"]
    assert form[view.keyset["description"]].startswith("Waits for a signal")
    await resumer.api.request("POST", f"/flow_runs/{run_id}/resume", json={"run_input": {"approved": True}})
    assert await running.answer() == flows.Approval(approved=True)


@pytest.mark.parametrize("model", [None, flows.Approval])
async def test_prefect_refuses_an_answer_that_was_meant_for_another_wait(resumer: Desk, model: Any) -> None:
    key = new_key()
    running = Running(resumer, flows.approving, key, input=model)
    view = await resumer.runs.read(await running.waits())
    stray = addressed({"approved": False}, pause="sluice-wait-7-another", signal="x", key=key)
    assert await resumer.runs.resume(view, stray) is Undone.NOT_WAITING
    assert (await resumer.outcome(await resumer.send(key=key, input={"approved": True}))).status == "applied"
    answer = await running.answer()
    assert answer == ({"approved": True} if model is None else flows.Approval(approved=True))


async def test_a_run_that_is_ended_while_it_waits_does_not_go_on(resumer: Desk) -> None:
    running = Running(resumer, flows.approving, new_key())
    run_id = await running.waits()
    await resumer.set_state(run_id, "CANCELLED", name="Cancelled")
    with pytest.raises(Abort, match="ended"):
        await running.answer()


async def test_misuse_is_said(prefect_url: str) -> None:
    with pytest.raises(RuntimeError, match="in a flow run"):
        sluice.wait_for_signal("k")
    with pytest.raises(ValueError, match="not both"):
        sluice.wait_for_signal("k", keys=["l"])
    with pytest.raises(ValueError, match=r"control character U\+000A"):
        sluice.wait_for_signal("a\nb")
