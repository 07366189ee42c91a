"""Waits that end without a signal, or whose signal Prefect has lost: recorded once, and given again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from events.errors import TransientError
from services.signals.applier import Applier
from services.signals.resume_observer import ResumeObserver
from tests.integration.signals.conftest import Desk, heard, heard_again, new_key, resumed_in_prefect
from tests.support.waiting import eventually


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
