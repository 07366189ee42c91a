"""The promise of Sluice under fire: exactly one flow run for each event and matching rule, whatever breaks.

Roles, Valkey and the Prefect server are real processes that are killed, stopped and restarted at random, with a
network between them that delays, cuts, half-closes and goes silent, while events come in over every source, and while
paused and suspended runs are answered. In the end the flow runs in Prefect are held against the journal, the journal
against what the publishers know they sent, and the answers that the runs received against those that they were given.

``FAULTS_SEED`` repeats a run's faults (their moments are the machine's), ``FAULTS_SECONDS`` sets how long
the soak goes on.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from pathlib import Path

import pytest

from services.operations.health import read_reports
from tests.integration.faults.conftest import Say
from tests.support.faults import Installation
from tests.support.faults_answers import Answers
from tests.support.faults_load import Load
from tests.support.faults_outcome import settled, table
from tests.support.waiting import PATIENCE_SECONDS

SOAK_SECONDS = float(os.environ.get("FAULTS_SECONDS", "600"))


@pytest.mark.slow
@pytest.mark.timeout(480)
async def test_every_event_has_its_runs_and_no_more_after_some_faults(tmp_path: Path, seed: int, say: Say) -> None:
    await _play(tmp_path, seed, say, fault_seconds=12, pause_seconds=0.12, prefect_kills=1, settle_seconds=120)


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_every_event_has_its_runs_and_no_more_after_many_faults(tmp_path: Path, seed: int, say: Say) -> None:
    await _play(
        tmp_path,
        seed,
        say,
        fault_seconds=SOAK_SECONDS,
        pause_seconds=0.25,
        prefect_kills=int(SOAK_SECONDS // 60),
        settle_seconds=300,
    )


async def _play(
    directory: Path,
    seed: int,
    say: Say,
    *,
    fault_seconds: float,
    pause_seconds: float,
    prefect_kills: int,
    settle_seconds: float,
) -> None:
    say(f"seed {seed} (FAULTS_SEED={seed}), logs in {directory}")
    rng = random.Random(seed)
    async with Installation(directory) as installation:
        await installation.becomes_ready(PATIENCE_SECONDS)
        load = Load(installation, random.Random(seed + 1))
        started = time.monotonic()
        publishing = asyncio.create_task(load.run(pause_seconds=pause_seconds))
        answers = Answers(
            installation.redis,
            api_port=installation.api_port,
            rng=random.Random(seed + 4),
        )
        answering = asyncio.create_task(answers.run(load.sure, load.unsure))
        queues = [_hurt(installation, random.Random(seed + queue), fault_seconds) for queue in (2, 3)]
        await asyncio.gather(*queues, _kill_prefect(installation, rng, fault_seconds, times=prefect_kills))
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        hurt_for = time.monotonic() - started
        await installation.becomes_ready(settle_seconds)
        await load.calm(5)
        calm = time.monotonic()
        verdict = await settled(installation, load, settle_seconds)
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        times = f"{hurt_for:.0f} s, {time.monotonic() - calm:.0f} s"
        say(table({"seed": seed, "time under faults, time to settle": times}, installation, load, answers, verdict))
        await load.aclose()
        await answers.aclose()
        reports = await read_reports(installation.redis)
        (directory / "reports.json").write_text(json.dumps(reports, indent=1))
        assert not installation.failed_roles(), f"logs in {directory}"
        assert not await installation.refusals(), f"logs in {directory}"
        assert not verdict.wrong, "\n".join([f"seed {seed}, logs in {directory}", *verdict.wrong[:20]])


async def _hurt(installation: Installation, rng: random.Random, seconds: float) -> None:
    ended = time.monotonic() + seconds
    while time.monotonic() < ended:
        await installation.hurt(rng)
        await asyncio.sleep(rng.uniform(0.1, 1))


async def _kill_prefect(installation: Installation, rng: random.Random, seconds: float, *, times: int) -> None:
    """At random moments, spread over the time so that the server has a chance to work in between."""
    started = time.monotonic()
    for turn in range(times):
        due = started + (turn + rng.uniform(0.1, 0.7)) * seconds / times
        await asyncio.sleep(max(0.0, due - time.monotonic()))  # a random moment
        await installation.kill_prefect(rng)
