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
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from services.operations.health import read_reports
from tests.support.faults import Installation
from tests.support.faults_answers import Answers
from tests.support.faults_check import Verdict, judge
from tests.support.faults_load import Load
from tests.support.waiting import PATIENCE_SECONDS

Say = Callable[[str], None]

SEED = os.environ.get("FAULTS_SEED")
SOAK_SECONDS = float(os.environ.get("FAULTS_SECONDS", "600"))


@pytest.fixture
def seed() -> int:
    return int(SEED) if SEED else random.SystemRandom().randrange(2**31)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints past pytest's capture: the seed must be known whatever happens."""

    def speak(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")
            sys.stdout.flush()

    return speak


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
        verdict = await _settled(installation, load, settle_seconds)
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        times = f"{hurt_for:.0f} s, {time.monotonic() - calm:.0f} s"
        say(_table({"seed": seed, "time under faults, time to settle": times}, installation, load, answers, verdict))
        await load.aclose()
        await answers.aclose()
        reports = await read_reports(installation.redis)
        (directory / "reports.json").write_text(json.dumps(reports, indent=1))
        assert not installation.failed_roles(), f"logs in {directory}"
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
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await installation.kill_prefect(rng)


async def _settled(installation: Installation, load: Load, within_seconds: float) -> Verdict:
    """The verdict once it is good, or the last one when ``within_seconds`` bring nothing on; a good one must stay good.

    Prefect is asked for its runs only when nothing waits any more: reading thousands of them would hold up the rest.
    """
    deadline = time.monotonic() + within_seconds
    fewest: float = float("inf")
    while (waiting := await installation.waiting()) and time.monotonic() < deadline:
        if waiting < fewest:
            fewest, deadline = waiting, time.monotonic() + within_seconds
        await asyncio.sleep(1)
    good_since: float | None = None
    while True:
        asked = time.monotonic()
        verdict = await judge(installation, load)
        now = time.monotonic()
        good_since = (good_since or now) if not verdict.wrong else None
        if now > deadline or (good_since is not None and now - good_since > 3):
            return verdict
        await asyncio.sleep(max(0.5, 2 * (now - asked)))


def _table(facts: dict[str, object], installation: Installation, load: Load, answers: Answers, verdict: Verdict) -> str:
    sent = Counter(load.sure.values())
    missing, extra = (verdict.wanted - verdict.found).total(), (verdict.found - verdict.wanted).total()
    lines = [
        "| what | how often |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        *(f"| events taken by: {name} | {count} |" for name, count in sorted(sent.items())),
        f"| sent again on purpose, under the same id | {load.again.total()} |",
        f"| sent without knowing whether it was taken (with pub/sub under faults) | {len(load.unsure)} |",
        *(f"| fault: {name} | {count} |" for name, count in sorted(installation.faults.items())),
        f"| flow runs wanted, found | {verdict.wanted.total()}, {verdict.found.total()} |",
        f"| runs missing, runs too many | {missing}, {extra} |",
        f"| runs executed, executions in all | {len(verdict.executed)}, {verdict.executed.total()} |",
        f"| of these, failed as Prefect was away for longer than a run's own client tries | {verdict.cut_off} |",
        f"| runs that waited and came to their end | {verdict.answers.waited} |",
        f"| answers wanted, received | {verdict.answers.wanted}, {verdict.answers.received.total()} |",
        f"| answers taken by: {', '.join(sorted(answers.ways))} | {', '.join(map(str, _by_name(answers.ways)))} |",
        f"| dead letters | {verdict.letters.total()} |",
        f"| promises broken | {len(verdict.wrong)} |",
    ]
    return "\n".join(lines)


def _by_name(counts: Counter[str]) -> list[int]:
    return [counts[name] for name in sorted(counts)]
