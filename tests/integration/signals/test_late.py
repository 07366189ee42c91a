"""Signals for a key whose last wait is over: told to their senders, and kept for a later run only if they say so."""

from __future__ import annotations

from tests.integration.signals.conftest import Desk, new_key
from tests.support.waiting import eventually


async def test_a_signal_after_the_run_is_over_is_late_and_decides_no_later_run(resumer: Desk) -> None:
    key = new_key()
    early = await resumer.ask(key=key)
    assert (early.status, early.reason) == ("buffered", "nobody waits for the key yet")  # it was never seen
    run_id = await resumer.park(key)
    assert (await resumer.outcome(early.signal.id)).status == "applied"
    await resumer.park(key, name="second", run_id=run_id)
    answer = await resumer.send(key=key, input={"n": 1}, by="ada")
    await resumer.outcome(answer)
    await resumer.set_state(run_id, "COMPLETED", name="Completed")

    late = await resumer.ask(key=key, input={"n": 2})
    assert late.status == "late"
    assert late.signal.id not in {record.signal.id async for page in resumer.store.buffered() for record in page}
    assert f"({run_id}) is Completed, answered by ada at" in late.reason
    assert f'with {{"n": 1}} (signal {answer})' in late.reason
    assert set(late.marks) == {run_id}
    await resumer.told(run_id, "late")
    assert not resumer.letters.kept

    wanted = await resumer.ask(key=key, input={"n": 3}, buffer=True)
    assert wanted.status == "buffered"
    third = await resumer.park(key)
    assert (await resumer.outcome(wanted.signal.id)).status == "applied"
    assert await resumer.answer(third) == {"n": 3}


async def test_a_run_that_goes_on_may_wait_again_and_loses_no_signal_until_it_is_over(resumer: Desk) -> None:
    key = new_key()
    run_id = await resumer.park(key)
    assert (await resumer.ask(key=key)).status == "applied"
    for number in range(2):  # a loop that waits for one key again and again
        between = await resumer.ask(key=key, input={"n": number})
        assert between.status == "buffered"
        assert "may wait for it again" in between.reason
        await resumer.park(key, name=f"again-{number}", run_id=run_id)
        assert (await resumer.outcome(between.signal.id)).status == "applied"
        assert await resumer.answer(run_id, f"again-{number}") == {"n": number}
    last = await resumer.ask(key=key)
    assert last.status == "buffered"
    await resumer.set_state(run_id, "COMPLETED")
    assert (await resumer.outcome(last.signal.id)).status == "late"


async def test_a_signal_is_kept_while_the_run_may_be_retried_or_its_parent_goes_on(resumer: Desk) -> None:
    crashed_key, sub_key = new_key(), new_key()
    crashed = await resumer.park(crashed_key)
    sub = await resumer.park(sub_key)
    assert (await resumer.ask(key=sub_key)).status == "applied"
    parent = await resumer.park(new_key())
    child = await _as_subflow(resumer, parent)
    await resumer.park(sub_key, run_id=child)
    assert (await resumer.ask(key=sub_key)).status == "applied"
    await eventually(lambda: _is_known(resumer, crashed_key), what="the wait was heard of")
    for run_id, state in ((crashed, "CRASHED"), (sub, "COMPLETED"), (child, "COMPLETED")):
        await resumer.set_state(run_id, state)
    kept = await resumer.ask(key=crashed_key)
    assert (kept.status, "if it is retried" in kept.reason or kept.reason) == ("buffered", True)
    failed = await resumer.park(crashed_key)
    assert (await resumer.outcome(kept.signal.id)).status == "applied"
    await resumer.set_state(failed, "FAILED")
    assert (await resumer.ask(key=crashed_key)).status == "late", "it failed after its wait had been answered"
    between = await resumer.ask(key=sub_key)
    assert (between.status, "may wait for it again" in between.reason or between.reason) == ("buffered", True)
    await resumer.set_state(parent, "CANCELLED")
    assert (await resumer.outcome(between.signal.id)).status == "late"


async def _is_known(resumer: Desk, key: str) -> bool:
    return bool((await resumer.store.waited_for([key]))[key])


async def _as_subflow(resumer: Desk, parent: str) -> str:
    task = {"flow_run_id": parent, "task_key": "wait", "dynamic_key": "0", "state": {"type": "RUNNING"}}
    made = await resumer.api.request("POST", "/task_runs/", json=task)
    flow = await resumer.api.request("POST", "/flows/", json={"name": "parked"})
    body = {"flow_id": flow["id"], "parent_task_run_id": made["id"], "state": {"type": "RUNNING"}}
    created: dict[str, str] = await resumer.api.request("POST", "/flow_runs/", json=body)
    return created["id"]
