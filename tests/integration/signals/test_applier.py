"""What becomes of signals, and who is told: every outcome, on parked runs (paused in Prefect, without a process)."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from events.errors import Refused
from tests.integration.signals.conftest import Desk, new_key
from tests.support.waiting import eventually

APPROVAL = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}


async def test_the_first_of_two_signals_for_one_wait_wins_and_the_second_is_a_duplicate(resumer: Desk) -> None:
    key = new_key()
    run_id = await resumer.park(key)
    first = await resumer.send(key=key, input={"n": 1})
    second = await resumer.send(key=key, input={"n": 2})
    third = await resumer.send(run_id=run_id, input={"n": 3})
    assert (await resumer.outcome(first)).status == "applied"
    for later in (second, third):
        record = await resumer.outcome(later)
        assert (record.status, "answered" in record.reason) == ("duplicate", True)
    assert await resumer.answer(run_id) == {"n": 1}
    assert await resumer.resumes(run_id) == 1
    events = await resumer.told(run_id, "applied", "duplicate")
    for event in events:
        related = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in event["related"]}
        assert related["flow"].startswith("prefect.flow.")
        assert related["signal"] == f"sluice.signal.{event['payload']['signal']}"
    names = [event["event"] for event in events]
    assert sorted(names) == ["sluice.signal.applied", *["sluice.signal.duplicate"] * (len(names) - 1)]


async def test_the_same_id_again_is_a_duplicate_and_changes_nothing(resumer: Desk) -> None:
    key = new_key()
    run_id = await resumer.park(key)
    signal_id = await resumer.send(key=key, id=f"fixed {uuid.uuid4()}")
    assert (await resumer.outcome(signal_id)).status == "applied"
    assert await resumer.send(key=key, id=signal_id) == signal_id
    record = await resumer.store.get(signal_id)
    assert record is not None
    assert (record.status, record.repeats, record.log[-1].status) == ("applied", 1, "duplicate")
    await resumer.told(run_id, "applied", "duplicate")


async def test_every_run_that_waits_for_the_key_is_resumed(resumer: Desk) -> None:
    key = new_key()
    runs = [await resumer.park(key) for _ in range(3)]
    other = await resumer.park(new_key())
    record = await resumer.ask(key=key)
    assert record.status == "applied"

    async def all_of_them() -> bool:  # those that were not heard of yet get it a moment later
        found = await resumer.store.get(record.signal.id)
        return found is not None and [mark.outcome for mark in found.marks.values()] == ["applied"] * 3

    await eventually(all_of_them, what="every run has it")
    assert [await resumer.resumes(run) for run in (*runs, other)] == [1, 1, 1, 0]


async def test_deliver_one_resumes_the_run_that_waits_longest_and_the_next_signal_the_next(resumer: Desk) -> None:
    key = new_key()
    runs = [await resumer.park(key) for _ in range(2)]
    first = await resumer.ask(key=key, deliver="one")
    assert (first.status, set(first.marks)) == ("applied", {runs[0]})
    second = await resumer.ask(key=key, deliver="one")
    assert (second.status, set(second.marks)) == ("applied", {runs[1]})
    assert (await resumer.ask(key=key, deliver="one")).status == "buffered"


async def test_early_signals_are_applied_in_order_one_for_each_wait(resumer: Desk) -> None:
    flow = await resumer.park("unused")
    await resumer.ask(run_id=flow)  # it runs now
    sent = [await resumer.send(run_id=flow, input={"n": number}) for number in range(3)]
    for signal_id in sent:
        await resumer.outcome(signal_id, of=["buffered"])
    for number in range(3):
        await resumer.park(name=f"wait {number}".replace(" ", "-"), run_id=flow)
        assert (await resumer.outcome(sent[number])).status == "applied"
        assert await resumer.answer(flow, f"wait-{number}") == {"n": number}
        later = [await resumer.store.get(signal_id) for signal_id in sent[number + 1 :]]
        assert [record.status for record in later if record] == ["buffered"] * len(later)


async def test_a_signal_for_a_run_that_has_ended_is_rejected_with_the_reason(resumer: Desk) -> None:
    run_id = await resumer.park(new_key())
    await resumer.set_state(run_id, "CANCELLED", name="Cancelled")
    record = await resumer.ask(run_id=run_id)
    assert record.status == "rejected"
    assert "Cancelled" in record.reason
    assert [letter.code for letter in resumer.letters.kept.values()] or await eventually(
        lambda: asyncio.sleep(0, list(resumer.letters.kept))
    )


async def test_a_signal_for_a_run_that_is_over_is_rejected_though_it_was_answered_before(resumer: Desk) -> None:
    run_id = await resumer.park(new_key())
    assert (await resumer.ask(run_id=run_id)).status == "applied"
    early = await resumer.ask(run_id=run_id)
    assert early.status == "buffered"
    await resumer.set_state(run_id, "COMPLETED", name="Completed")
    for record in (await resumer.outcome(early.signal.id), await resumer.ask(run_id=run_id)):
        assert (record.status, record.reason) == ("rejected", "the run is over: Completed")


async def test_a_buffered_signal_expires_into_a_dead_letter_that_keeps_it_whole(resumer: Desk) -> None:
    key = new_key()
    record = await resumer.ask(key=key, ttl_seconds=3, input={"n": 7}, by="ann", event_identity="e-1")
    assert record.status == "buffered"
    assert (await resumer.outcome(record.signal.id)).status == "expired"

    async def letter() -> bytes | None:
        found = [one for one in resumer.letters.kept.values() if one.code == "expired"]
        return found[0].raw if found else None

    raw = await eventually(letter)
    assert raw
    assert b'"n":7' in raw
    assert ("e-1", record.signal.id, "expired") in resumer.book.lines
    events = await resumer.told(record.signal.id, "buffered", "expired", about="sluice.signal")
    assert {event["related"][1]["prefect.resource.id"] for event in events} == {"sluice.event.e-1"}
    run_id = await resumer.park(key)
    assert await resumer.resumes(run_id) == 0


async def test_a_reject_of_a_plain_pause_cancels_the_run_with_who_and_why(resumer: Desk) -> None:
    run_id = await resumer.park(new_key())
    await resumer.set_state(run_id, "RUNNING")
    await resumer.set_state(run_id, "PAUSED", name="Paused", state_details={"pause_key": "1"})
    record = await resumer.ask(run_id=run_id, action="reject", by="ann", reason="too dear")
    assert record.status == "applied"
    state = await resumer.state(run_id)
    assert state["type"] == "CANCELLING"
    assert state["message"].startswith("Rejected by ann: too dear")


async def test_somebody_elses_resume_is_recorded_and_a_signal_after_it_is_a_duplicate(resumer: Desk) -> None:
    key = new_key()
    run_id = await resumer.park(key)
    await eventually(lambda: resumer.store._redis.hexists("sluice:signals:waiting", run_id))
    await resumer.api.request("POST", f"/flow_runs/{run_id}/resume", json={"run_input": {"go_on": True}})

    async def recorded() -> str | None:
        return next((one.signal.by for one in await resumer.store.of_run(run_id)), None)

    assert await eventually(recorded) == "Prefect UI or API"
    await resumer.told(run_id, "applied")


@pytest.mark.parametrize("hostile", [{"__prefect_kind": "workspace_variable"}, {"a": [{"__prefect_kind": "jinja"}]}])
async def test_input_that_the_server_would_execute_is_refused_at_the_submission(
    submission: Desk, hostile: dict[str, str]
) -> None:
    with pytest.raises(Refused) as refused:
        await submission.send(key=new_key(), input=hostile)
    assert refused.value.code == "hydration"


async def test_a_stale_tag_resumes_nothing(resumer: Desk) -> None:
    """A run that carries the tag but waits for something else, in Sluice's way or in Prefect's own."""
    key = new_key()
    ours = await resumer.park(new_key())
    plain = await resumer.park(new_key())
    await resumer.set_state(plain, "RUNNING")
    await resumer.set_state(plain, "PAUSED", name="Paused", state_details={"pause_key": "1"})
    for run_id in (ours, plain):
        await resumer.api.request("PATCH", f"/flow_runs/{run_id}", json={"tags": [f"awaits:{key}"]})
    assert (await resumer.ask(key=key)).status == "buffered"
    assert [await resumer.resumes(run_id) for run_id in (ours, plain)] == [0, 1]
