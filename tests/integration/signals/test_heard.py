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
from services.prefect_api.events import StateChange
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
def prefect(desk: Desk) -> Counted:
    return Counted(desk.runs)


@pytest.fixture
def applier(desk: Desk, prefect: Counted) -> Applier:
    return Applier(store=desk.store, runs=prefect, hints=desk.hints, settings=settings())


async def heard(desk: Desk, *run_ids: str) -> None:
    await desk.hints.began([await desk.runs.read(run_id) for run_id in run_ids])


async def resumed_in_prefect(desk: Desk, run_id: str) -> None:
    await desk.api.request("POST", f"/flow_runs/{run_id}/resume", json={"run_input": {"by": "hand"}})


async def test_a_signal_for_a_run_that_was_heard_costs_prefect_one_call(
    desk: Desk, applier: Applier, prefect: Counted
) -> None:
    key = new_key()
    by_key, by_id = await desk.park(key), await desk.park(new_key())
    await heard(desk, by_key, by_id)
    for target, run_id in (({"key": key}, by_key), ({"run_id": by_id}, by_id)):
        prefect.asked.clear()
        signal_id = await desk.send_quietly(**target, input={"n": 1})
        await applier.apply(signal_id)
        assert (await desk.outcome(signal_id)).status == "applied"
        assert await desk.answer(run_id) == {"n": 1}
        assert prefect.asked == ["resume"]


async def test_a_signal_never_answers_another_wait_than_the_one_that_was_heard_of(desk: Desk, applier: Applier) -> None:
    """The run has gone on by hand and waits for something else, and nobody has heard of it yet."""
    key, other = new_key(), new_key()
    run_id = await desk.park(key)
    await heard(desk, run_id)
    during = await desk.send_quietly(key=key, input={"n": 1})
    await resumed_in_prefect(desk, run_id)
    after = await desk.send_quietly(key=key, input={"n": 2})
    await desk.park(other, name="second", run_id=run_id)

    await applier.apply(during)
    await heard(desk, run_id)
    assert (await desk.outcome(during)).status == "duplicate"
    await applier.apply(after)
    assert (await desk.outcome(after, of=["buffered"])).marks == {}
    assert await desk.answer(run_id) == {"by": "hand"}
    assert await desk.answer(run_id, name="second") is None
    assert await desk.resumes(run_id) == 1


async def test_a_rejection_never_ends_another_wait_than_the_one_that_was_heard_of(desk: Desk, applier: Applier) -> None:
    key = new_key()
    run_id = await desk.park(key)
    await heard(desk, run_id)
    await resumed_in_prefect(desk, run_id)
    await desk.park(new_key(), name="second", run_id=run_id)
    rejecting = await desk.send_quietly(key=key, action="reject")
    await applier.apply(rejecting)
    await desk.outcome(rejecting, of=["buffered"])
    assert (await desk.runs.read(run_id)).waiting


async def test_a_run_that_waits_unheard_gets_the_signal_for_all_when_it_is_heard_of(
    desk: Desk, applier: Applier, resumer_later: Any
) -> None:
    key = new_key()
    first, second, third = [await desk.park(key) for _ in range(3)]
    await heard(desk, first)
    signal_id = await desk.send_quietly(key=key, input={"n": 1})
    later = await desk.park(key)
    await applier.apply(signal_id)
    assert (await desk.outcome(signal_id)).status == "applied"
    assert await desk.answer(second) is None

    async with resumer_later():

        async def all_of_them() -> bool:
            record = await desk.store.get(signal_id)
            return record is not None and [mark.outcome for mark in record.marks.values()] == ["applied"] * 3

        await eventually(all_of_them, what="every run that waited got the signal")
    assert (await desk.runs.read(later)).waiting, "it began to wait after the signal"
    for run_id in (first, second, third):
        assert await desk.answer(run_id) == {"n": 1}
        assert await desk.resumes(run_id) == 1


async def test_where_nobody_was_heard_of_prefect_is_asked(desk: Desk, applier: Applier) -> None:
    key = new_key()
    run_id = await desk.park(key)
    signal_id = await desk.send_quietly(key=key)
    await applier.apply(signal_id)
    assert (await desk.outcome(signal_id)).status == "applied"
    assert await desk.resumes(run_id) == 1


async def test_a_run_that_was_deleted_is_forgotten(desk: Desk, applier: Applier) -> None:
    key = new_key()
    run_id = await desk.park(key)
    await heard(desk, run_id)
    await desk.api.request("DELETE", f"/flow_runs/{run_id}")
    by_key = await desk.send_quietly(key=key)
    by_id = await desk.send_quietly(run_id=run_id)
    await applier.apply(by_key)
    record = await desk.outcome(by_key)
    assert (record.status, record.reason) == ("rejected", "the run was deleted")

    async def unknown() -> bool:
        await applier.apply(by_id)
        record = await desk.store.get(by_id)
        return record is not None and record.status == "unknown-run"

    await eventually(unknown, what="the signal is told that there is no such run")
    assert await desk.hints.memos_for(key) == []


async def test_a_resume_by_hand_is_recorded_though_a_signal_tried_at_the_same_time(
    desk: Desk, applier: Applier, resumer_later: Any
) -> None:
    key = new_key()
    run_id = await desk.park(key)
    await heard(desk, run_id)
    during = await desk.send_quietly(run_id=run_id, input={"n": 1})
    await resumed_in_prefect(desk, run_id)
    await applier.apply(during)
    assert (await desk.outcome(during)).status == "duplicate"
    await heard_again(desk, run_id)
    async with resumer_later():

        async def recorded() -> bool:
            return "prefect" in [record.origin for record in await desk.store.of_run(run_id)]

        await eventually(recorded, what="the resume by hand is recorded")


async def test_a_signal_that_comes_while_the_runs_past_is_read_is_not_taken_for_a_resume_by_hand(
    desk: Desk, applier: Applier
) -> None:
    """A scan missed the run that had just begun to wait, and asks what became of it."""
    run_id = await desk.park(new_key())
    await heard(desk, run_id)
    wait = (await desk.runs.read(run_id)).wait_id
    bystander = ResumeObserver(
        store=desk.store, waits=desk.hints, runs=desk.runs, apply=applier.apply, remind=lambda _: asyncio.sleep(0)
    )
    asking = asyncio.create_task(bystander.left_unheard(run_id, wait))
    await asyncio.sleep(0.1)  # in the middle of its looks
    signal_id = await desk.send_quietly(run_id=run_id, input={"n": 1})
    await applier.apply(signal_id)
    with contextlib.suppress(TransientError):  # it may have looked for the last time before
        await asking
    assert [record.signal.id for record in await desk.store.of_run(run_id)] == [signal_id]


async def test_an_early_signal_is_not_spent_on_a_wait_that_another_has_just_answered(
    desk: Desk, applier: Applier
) -> None:
    run_id = await desk.park(name="first")
    await heard(desk, run_id)
    await applier.apply(await desk.send_quietly(run_id=run_id, input={"n": 0}))
    early = [await desk.send_quietly(run_id=run_id, input={"n": number}) for number in (1, 2)]
    for signal_id in early:
        await applier.apply(signal_id)
        await desk.outcome(signal_id, of=["buffered"])
    await desk.park(name="second", run_id=run_id)
    await heard(desk, run_id)
    await applier.apply(early[0])
    assert (await desk.outcome(early[0])).status == "applied"

    await heard_again(desk, run_id)
    await applier.apply(early[1])
    await desk.outcome(early[1], of=["buffered"])
    await desk.park(name="third", run_id=run_id)
    await applier.serve(run_id)
    assert (await desk.outcome(early[1])).status == "applied"
    answers = [await desk.answer(run_id, name=name) for name in ("first", "second", "third")]
    assert answers == [{"n": 0}, {"n": 1}, {"n": 2}]


async def heard_again(desk: Desk, run_id: str) -> None:
    """As if the watch had not been told yet that the wait is over."""
    stay = [stay for stay in await desk.runs.stays(run_id) if stay.state_type == "PAUSED"][-1]
    run = await desk.runs.read(run_id)
    paused = dataclasses.replace(
        run,
        state_id=stay.state_id,
        state_type="PAUSED",
        entered=stay.entered,
        pause_key=stay.pause_key,
        keyset=stay.keyset,
    )
    await desk.hints.began([paused])


async def test_a_run_that_is_seen_to_wait_long_after_it_was_told_of_is_heard_of(desk: Desk) -> None:
    """Prefect tells of the states of a bulk call when it makes them, and commits them all at its end."""
    run_id = await desk.park()
    await desk.set_state(run_id, "RUNNING")

    async def told() -> AsyncIterator[StateChange]:
        yield StateChange(run_id, str(uuid.uuid4()), "PAUSED", "Paused", datetime.now(UTC), None, ())
        await asyncio.Event().wait()

    async def nothing(_: object) -> None:
        """No signal is there to be applied."""

    watch = WaitObserver(
        store=desk.store,
        waits=desk.hints,
        runs=desk.runs,
        apply=nothing,
        serve=nothing,
        bystander=ResumeObserver(store=desk.store, waits=desk.hints, runs=desk.runs, apply=nothing, remind=nothing),
        changes=told,
        settings=settings(poll_seconds=600, scan_seconds=600),
    )
    watching = asyncio.create_task(watch.run())
    await asyncio.sleep(4)
    assert await desk.hints.count() == 0
    await desk.set_state(run_id, "PAUSED")
    await eventually(lambda: _counted(desk, 1))
    watching.cancel()
    await asyncio.wait({watching})


async def _counted(desk: Desk, count: int) -> bool:
    return await desk.hints.count() == count


async def test_an_answer_that_prefect_loses_with_a_crash_is_given_again(
    desk: Desk, applier: Applier, resumer_later: Any
) -> None:
    """Its database is as it was a second ago: the run waits, and the answer is not there."""
    run_id = await desk.park(new_key())
    before = await desk.runs.read(run_id)
    signal_id = await desk.send_quietly(run_id=run_id, input={"n": 1})
    await applier.apply(signal_id)
    assert (await desk.outcome(signal_id)).status == "applied"
    await desk.api.request("DELETE", f"/flow_runs/{run_id}/input/{before.keyset['response']}")
    details = {"pause_key": before.pause_key, "run_input_keyset": dict(before.keyset)}
    await desk.set_state(run_id, "PAUSED", state_details=details)
    async with resumer_later():

        async def given() -> bool:
            return await desk.answer(run_id) == {"n": 1}

        await eventually(given, what="the answer is given again")
        assert not (await desk.runs.read(run_id)).waiting
        assert (await desk.outcome(signal_id)).status == "applied"
