"""What was heard of waiting runs: it saves calls of Prefect, and is never taken for more than a hint."""

from __future__ import annotations

from typing import Any

from services.signals.applier import Applier
from tests.integration.signals.conftest import Counted, Desk, heard, heard_again, new_key, resumed_in_prefect
from tests.support.waiting import eventually


async def test_a_signal_for_a_run_that_was_heard_costs_prefect_one_call(
    submission: Desk, applier: Applier, prefect: Counted
) -> None:
    key = new_key()
    by_key, by_id = await submission.park(key), await submission.park(new_key())
    await heard(submission, by_key, by_id)
    for target, run_id in (({"key": key}, by_key), ({"run_id": by_id}, by_id)):
        prefect.asked.clear()
        signal_id = await submission.send_quietly(**target, input={"n": 1})
        await applier.apply(signal_id)
        assert (await submission.outcome(signal_id)).status == "applied"
        assert await submission.answer(run_id) == {"n": 1}
        assert prefect.asked == ["resume"]


async def test_a_signal_never_answers_another_wait_than_the_one_that_was_heard_of(
    submission: Desk, applier: Applier
) -> None:
    """The run has gone on by hand and waits for something else, and nobody has heard of it yet."""
    key, other = new_key(), new_key()
    run_id = await submission.park(key)
    await heard(submission, run_id)
    during = await submission.send_quietly(key=key, input={"n": 1})
    await resumed_in_prefect(submission, run_id)
    after = await submission.send_quietly(key=key, input={"n": 2})
    await submission.park(other, name="second", run_id=run_id)

    await applier.apply(during)
    await heard(submission, run_id)
    assert (await submission.outcome(during)).status == "duplicate"
    await applier.apply(after)
    assert (await submission.outcome(after, of=["buffered"])).marks == {}
    assert await submission.answer(run_id) == {"by": "hand"}
    assert await submission.answer(run_id, name="second") is None
    assert await submission.resumes(run_id) == 1


async def test_a_rejection_never_ends_another_wait_than_the_one_that_was_heard_of(
    submission: Desk, applier: Applier
) -> None:
    key = new_key()
    run_id = await submission.park(key)
    await heard(submission, run_id)
    await resumed_in_prefect(submission, run_id)
    await submission.park(new_key(), name="second", run_id=run_id)
    rejecting = await submission.send_quietly(key=key, action="reject")
    await applier.apply(rejecting)
    await submission.outcome(rejecting, of=["buffered"])
    assert (await submission.runs.read(run_id)).waiting


async def test_a_run_that_waits_unheard_gets_the_signal_for_all_when_it_is_heard_of(
    submission: Desk, applier: Applier, resumer_later: Any
) -> None:
    key = new_key()
    first, second, third = [await submission.park(key) for _ in range(3)]
    await heard(submission, first)
    signal_id = await submission.send_quietly(key=key, input={"n": 1})
    later = await submission.park(key)
    await applier.apply(signal_id)
    assert (await submission.outcome(signal_id)).status == "applied"
    assert await submission.answer(second) is None

    async with resumer_later():

        async def all_of_them() -> bool:
            record = await submission.store.get(signal_id)
            return record is not None and [mark.outcome for mark in record.marks.values()] == ["applied"] * 3

        await eventually(all_of_them, what="every run that waited got the signal")
    assert (await submission.runs.read(later)).waiting, "it began to wait after the signal"
    for run_id in (first, second, third):
        assert await submission.answer(run_id) == {"n": 1}
        assert await submission.resumes(run_id) == 1


async def test_where_nobody_was_heard_of_prefect_is_asked(submission: Desk, applier: Applier) -> None:
    key = new_key()
    run_id = await submission.park(key)
    signal_id = await submission.send_quietly(key=key)
    await applier.apply(signal_id)
    assert (await submission.outcome(signal_id)).status == "applied"
    assert await submission.resumes(run_id) == 1


async def test_a_run_that_was_deleted_is_forgotten(submission: Desk, applier: Applier) -> None:
    key = new_key()
    run_id = await submission.park(key)
    await heard(submission, run_id)
    await submission.api.request("DELETE", f"/flow_runs/{run_id}")
    by_key = await submission.send_quietly(key=key)
    by_id = await submission.send_quietly(run_id=run_id)
    await applier.apply(by_key)
    record = await submission.outcome(by_key)
    assert (record.status, record.reason) == ("rejected", "the run was deleted")

    async def unknown() -> bool:
        await applier.apply(by_id)
        record = await submission.store.get(by_id)
        return record is not None and record.status == "unknown-run"

    await eventually(unknown, what="the signal is told that there is no such run")
    assert await submission.hints.memos_for(key) == []


async def test_an_early_signal_is_not_spent_on_a_wait_that_another_has_just_answered(
    submission: Desk, applier: Applier
) -> None:
    run_id = await submission.park(name="first")
    await heard(submission, run_id)
    await applier.apply(await submission.send_quietly(run_id=run_id, input={"n": 0}))
    early = [await submission.send_quietly(run_id=run_id, input={"n": number}) for number in (1, 2)]
    for signal_id in early:
        await applier.apply(signal_id)
        await submission.outcome(signal_id, of=["buffered"])
    await submission.park(name="second", run_id=run_id)
    await heard(submission, run_id)
    await applier.apply(early[0])
    assert (await submission.outcome(early[0])).status == "applied"

    await heard_again(submission, run_id)
    await applier.apply(early[1])
    await submission.outcome(early[1], of=["buffered"])
    await submission.park(name="third", run_id=run_id)
    await applier.serve(run_id)
    assert (await submission.outcome(early[1])).status == "applied"
    answers = [await submission.answer(run_id, name=name) for name in ("first", "second", "third")]
    assert answers == [{"n": 0}, {"n": 1}, {"n": 2}]
