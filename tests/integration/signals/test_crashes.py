"""Resumers that are killed: at every step of a signal, and at any time under load. Nothing is lost or applied twice."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.signals.applier import Applier
from tests.integration.signals.conftest import Desk, new_key, settings
from tests.support.waiting import eventually
from tests.support.warm import ModuleProcess, run_module, start_module

STEPS = 40
"""More than the steps that a signal is applied in."""

pytestmark = pytest.mark.slow


async def killed_at_every_step(checkout: Path, url: str, signal_ids: list[str]) -> list[str]:
    done = await asyncio.to_thread(run_module, "tests.support.mortal_resumer", "steps", url, *signal_ids, cwd=checkout)
    return done.stdout.splitlines()


@pytest.mark.parametrize("way", ["by run id", "by key", "reject"])
async def test_killed_at_any_step_it_is_applied_once_by_who_comes_after(
    submission: Desk, valkey_url: str, checkout: Path, way: str
) -> None:
    keys = [new_key() for _ in range(STEPS)]
    runs = [await submission.park(key) for key in keys]
    sent = []
    for number, (key, run_id) in enumerate(zip(keys, runs, strict=True)):
        target: dict[str, Any] = {"key": key} if way == "by key" else {"run_id": run_id}
        if way == "reject":
            target |= {"action": "reject", "by": "ann"}
        sent.append(await submission.send_quietly(**target, input={"n": number}))

    reached = await killed_at_every_step(checkout, valkey_url, sent)

    assert reached[-1] == "done"
    assert {"after claim", "before settle", "after settle", "before decide", "after decide"} <= set(reached)
    assert ("after end_wait" if way == "reject" else "after resume") in reached
    if way == "reject":
        assert {"after POST input", "before POST set_state"} <= set(reached), "between its verdict and the state"
    applier = Applier(store=submission.store, runs=submission.runs, hints=submission.hints, settings=settings())
    for number, signal_id in enumerate(sent[: len(reached)]):
        await applier.apply(signal_id)
        record = await submission.outcome(signal_id)
        assert record.status == "applied", (reached[number], record.reason)
        assert await submission.resumes(runs[number]) == 1, reached[number]
        if way != "reject":
            assert await submission.answer(runs[number]) == {"n": number}


async def test_a_killed_signal_never_answers_the_next_wait_of_its_run(
    submission: Desk, valkey_url: str, checkout: Path
) -> None:
    """The run has gone on and waits again, for the same key, before anybody looks at the signal again."""
    keys = [new_key() for _ in range(STEPS)]
    runs = [await submission.park(key) for key in keys]
    sent = [await submission.send_quietly(key=key, input={"n": 1}) for key in keys]
    reached = await killed_at_every_step(checkout, valkey_url, sent)
    applier = Applier(store=submission.store, runs=submission.runs, hints=submission.hints, settings=settings())
    seen: Counter[str] = Counter()
    for number, name in enumerate(reached):
        run_id = runs[number]
        went_on = not (await submission.runs.read(run_id)).waiting
        if went_on:
            await submission.park(keys[number], name="second", run_id=run_id)
        await applier.apply(sent[number])
        record = await submission.outcome(sent[number])
        assert record.status == "applied", (name, record.reason)
        assert await submission.resumes(run_id) == 1, name
        seen["went on" if went_on else "waited"] += 1
    assert min(seen.values()) > 3


@asynccontextmanager
async def resumer_process(checkout: Path, url: str, name: str) -> AsyncIterator[ModuleProcess]:
    process = start_module("tests.support.mortal_resumer", "serve", url, name, cwd=checkout, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert await asyncio.to_thread(process.stdout.readline) == "serving\n"
        yield process
    finally:
        process.kill()
        await process.ended()


async def test_resumers_killed_under_load_lose_nothing_and_keep_the_order(
    submission: Desk, valkey_url: str, checkout: Path
) -> None:
    runs = [await submission.park(new_key()) for _ in range(25)]
    sent: list[tuple[str, str]] = []

    async def load() -> None:
        for run_id in runs:
            sent.append((run_id, await submission.send(run_id=run_id, input={"run": run_id})))
            await submission.send(run_id=run_id, input={"second": True})
            await asyncio.sleep(0.02)  # the load goes on while resumers are killed

    async with resumer_process(checkout, valkey_url, "a") as first, resumer_process(checkout, valkey_url, "b"):
        loading = asyncio.create_task(load())
        for killed in (first,):

            async def some() -> bool:
                return len(sent) > 3 and any([await submission.answer(run_id) for run_id, _ in sent])

            await eventually(some)
            killed.kill()
            await killed.ended()
        await loading
        for run_id, signal_id in sent:
            record = await submission.outcome(signal_id, within=60)
            assert record.status == "applied"
            assert await submission.answer(run_id) == {"run": run_id}
            assert await submission.resumes(run_id) == 1
