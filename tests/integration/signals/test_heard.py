"""What was heard of waiting runs: it saves calls of Prefect, and is never taken for more than a hint."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from events.errors import TransientError
from services.prefect_api import events
from services.prefect_api.runs import StateChange
from services.prefect_api.waiting import WaitingRuns
from services.signals.applier import Applier
from services.signals.resume_observer import ResumeObserver
from services.signals.wait_observer import WaitObserver
from tests.integration.signals.conftest import Desk, new_key, settings
from tests.support.waiting import eventually


class Counted:
    """Prefect, with a list of what it was asked."""

    def __init__(self, runs: WaitingRuns) -> None:
        self._runs = runs
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self._runs, name)


@pytest.fixture
def prefect(submission: Desk) -> Counted:
    return Counted(submission.runs)


@pytest.fixture
def applier(submission: Desk, prefect: Counted) -> Applier:
    return Applier(store=submission.store, runs=prefect, hints=submission.hints, settings=settings())


async def heard(submission: Desk, *run_ids: str) -> None:
    await submission.hints.began([await submission.runs.read(run_id) for run_id in run_ids])


async def resumed_in_prefect(submission: Desk, run_id: str) -> None:
    await submission.api.request("POST", f"/flow_runs/{run_id}/resume", json={"run_input": {"by": "hand"}})


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


async def test_a_resume_by_hand_is_recorded_though_a_signal_tried_at_the_same_time(
    submission: Desk, applier: Applier, resumer_later: Any
) -> None:
    key = new_key()
    run_id = await submission.park(key)
    await heard(submission, run_id)
    during = await submission.send_quietly(run_id=run_id, input={"n": 1})
    await resumed_in_prefect(submission, run_id)
    await applier.apply(during)
    assert (await submission.outcome(during)).status == "duplicate"
    await heard_again(submission, run_id)
    async with resumer_later():

        async def recorded() -> bool:
            return "prefect" in [record.origin for record in await submission.store.of_run(run_id)]

        await eventually(recorded, what="the resume by hand is recorded")


async def test_a_wait_of_a_run_that_was_deleted_unheard_is_ended(submission: Desk, applier: Applier) -> None:
    """The resumer was away, or its state is older than Prefect's: Prefect has no states of the run."""
    run_id = await submission.park(new_key())
    await heard(submission, run_id)
    wait = (await submission.runs.read(run_id)).wait_id
    await submission.api.request("DELETE", f"/flow_runs/{run_id}")
    resume_observer = ResumeObserver(
        store=submission.store,
        waits=submission.hints,
        runs=submission.runs,
        apply=applier.apply,
        remind=lambda _: asyncio.sleep(0),
    )
    await resume_observer.left_unheard(run_id, wait)
    assert run_id not in [known async for known, _ in submission.hints.known()]


async def test_a_signal_that_comes_while_the_runs_past_is_read_is_not_taken_for_a_resume_by_hand(
    submission: Desk, applier: Applier
) -> None:
    """A scan missed the run that had just begun to wait, and asks what became of it."""
    run_id = await submission.park(new_key())
    await heard(submission, run_id)
    wait = (await submission.runs.read(run_id)).wait_id
    resume_observer = ResumeObserver(
        store=submission.store,
        waits=submission.hints,
        runs=submission.runs,
        apply=applier.apply,
        remind=lambda _: asyncio.sleep(0),
    )
    asking = asyncio.create_task(resume_observer.left_unheard(run_id, wait))
    await asyncio.sleep(0.1)  # in the middle of its looks
    signal_id = await submission.send_quietly(run_id=run_id, input={"n": 1})
    await applier.apply(signal_id)
    with contextlib.suppress(TransientError):  # it may have looked for the last time before
        await asking
    assert [record.signal.id for record in await submission.store.of_run(run_id)] == [signal_id]


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


async def heard_again(submission: Desk, run_id: str) -> None:
    """As if the watch had not been told yet that the wait is over."""
    stay = [stay for stay in await submission.runs.stays(run_id) if stay.state_type == "PAUSED"][-1]
    run = await submission.runs.read(run_id)
    paused = dataclasses.replace(
        run,
        state_id=stay.state_id,
        state_type="PAUSED",
        entered=stay.entered,
        pause_key=stay.pause_key,
        keyset=stay.keyset,
    )
    await submission.hints.began([paused])


async def test_a_run_that_is_seen_to_wait_long_after_it_was_told_of_is_heard_of(
    submission: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect tells of the states of a bulk call when it makes them, and commits them all at its end."""
    run_id = await submission.park()
    await submission.set_state(run_id, "RUNNING")

    async def told(**_: object) -> AsyncIterator[StateChange]:
        yield StateChange(run_id, str(uuid.uuid4()), "PAUSED", "Paused", datetime.now(UTC))
        await asyncio.Event().wait()

    monkeypatch.setattr(events, "state_changes", told)

    async def nothing(_: object) -> None:
        """No signal is there to be applied."""

    watch = WaitObserver(
        store=submission.store,
        waits=submission.hints,
        runs=submission.runs,
        apply=nothing,
        serve=nothing,
        resume_observer=ResumeObserver(
            store=submission.store, waits=submission.hints, runs=submission.runs, apply=nothing, remind=nothing
        ),
        settings=settings(poll_seconds=600, scan_seconds=600),
    )
    watching = asyncio.create_task(watch.run())
    await asyncio.sleep(4)  # nothing is to happen
    assert await submission.hints.count() == 0
    await submission.set_state(run_id, "PAUSED")
    await eventually(lambda: _counted(submission, 1))
    watching.cancel()
    await asyncio.wait({watching})


async def _counted(submission: Desk, count: int) -> bool:
    return await submission.hints.count() == count


async def test_an_answer_that_prefect_loses_with_a_crash_is_given_again(
    submission: Desk, applier: Applier, resumer_later: Any
) -> None:
    """Its database is as it was a second ago: the run waits, and the answer is not there."""
    run_id = await submission.park(new_key())
    before = await submission.runs.read(run_id)
    signal_id = await submission.send_quietly(run_id=run_id, input={"n": 1})
    await applier.apply(signal_id)
    assert (await submission.outcome(signal_id)).status == "applied"
    await submission.api.request("DELETE", f"/flow_runs/{run_id}/input/{before.keyset['response']}")
    details = {"pause_key": before.pause_key, "run_input_keyset": dict(before.keyset)}
    await submission.set_state(run_id, "PAUSED", state_details=details)
    async with resumer_later():

        async def given() -> bool:
            return await submission.answer(run_id) == {"n": 1}

        await eventually(given, what="the answer is given again")
        assert not (await submission.runs.read(run_id)).waiting
        assert (await submission.outcome(signal_id)).status == "applied"
