"""Nothing in Redis is trusted: garbage of every type under every key leaves all roles at work and every event done.

``GARBAGE_SEED`` repeats what is written, ``GARBAGE_SECONDS`` sets how long the soak goes on.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.exceptions import ResponseError

from config.settings import JournalSettings, load_settings
from events.errors import SluiceError
from events.identity import identity_of
from services.operations.health import read_reports
from services.operations.status import read_status
from services.operations.upkeep.inspector import declared_keys
from services.store.dead_letters import DeadLetters, LetterQuery
from services.store.events.journal import Journal
from services.store.events.open_effects import OPEN
from services.store.inspection.key_inspection import KeyInspection
from services.store.keys import KeyList
from services.store.runs.created_runs import ACTIVE, RUN, RUNS
from services.store.runs.dispatch_queues import DispatchQueues
from tests.support import faults_answers, garbage
from tests.support.faults import Installation
from tests.support.faults_answers import Answers
from tests.support.faults_check import Verdict, judge
from tests.support.faults_load import Load
from tests.support.waiting import PATIENCE_SECONDS, eventually

Say = Callable[[str], None]

SEED = os.environ.get("GARBAGE_SEED")
SOAK_SECONDS = float(os.environ.get("GARBAGE_SECONDS", "300"))
KEYS = KeyList(key for keys in declared_keys().values() for key in keys)

EXPECTED_LETTERS = {"wrong-type", "unreadable", "broken-entry", "foreign-job", "held"}


@pytest.fixture
def seed() -> int:
    return int(SEED) if SEED else random.SystemRandom().randrange(2**31)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_garbage_under_every_key_stops_no_role_and_costs_no_event(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    await _play(tmp_path, seed, capsys, seconds=12)


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_garbage_under_every_key_for_long(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    await _play(tmp_path, seed, capsys, seconds=SOAK_SECONDS)


async def _play(directory: Path, seed: int, capsys: pytest.CaptureFixture[str], *, seconds: float) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\nseed {seed} (GARBAGE_SEED={seed}), logs in {directory}\n")
    rng = random.Random(seed)
    async with Installation(directory) as installation:
        await installation.becomes_ready(PATIENCE_SECONDS)
        # Before there is anything to lose, even the keys that are there are replaced by others of the same name.
        for key in KEYS:
            for name in garbage.names_of(key, rng, ["evil"]):
                if key.kind != "any":
                    await installation.redis.delete(name)
                    await garbage.write(
                        installation.redis, name, rng.choice([kind for kind in garbage.TYPES if kind != key.kind]), rng
                    )
        await eventually(lambda: _clean(installation), what="every key of another type was set aside")
        await installation.becomes_ready(PATIENCE_SECONDS)
        await installation.redis.set("rq:suspended", 1)  # RQ's own way to stop all its workers
        load = Load(installation, random.Random(seed + 1))
        publishing = asyncio.create_task(load.run(pause_seconds=0.1))
        asking = asyncio.create_task(_ask(installation))
        answers = Answers(installation.redis, api_port=installation.api_port, rng=random.Random(seed + 4))
        answering = asyncio.create_task(answers.run(load.sure, load.unsure))
        ended = time.monotonic() + seconds
        while time.monotonic() < ended:
            await _litter(installation, load, rng)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        await load.calm(3)
        await KeyInspection(installation.redis, KEYS).everything()  # as once an hour
        verdict = await _settled(installation, load)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        await load.aclose()
        await answers.aclose()
        assert verdict.wanted.total() > 50
        assert not installation.ended_roles(), "no role has ended"
        assert not await installation.refusals(), "each role may do what it needs"
        assert not await garbage.misplaced(installation.redis, KEYS)
        letters = [letter async for letter in DeadLetters(installation.redis).walk(LetterQuery(kind="stored"))]
        assert letters
        assert all(len(letter.raw) <= 4096 for letter in letters)


async def _litter(installation: Installation, load: Load, rng: random.Random) -> None:
    """Garbage among what is there, and other types where something will come."""
    soon = [identity_of("faults", f"ce-{load.last + n}") for n in range(1, 6)]
    parts = [*soon, "every:fault/every", "every", "tenth", "default", "inbox", "faults", "dispatch", "1"]
    for key in rng.sample(list(KEYS), 6):
        if key.kind == "any":
            continue
        for name in garbage.names_of(key, rng, [rng.choice(parts)]):
            there = await installation.redis.exists(name)
            await garbage.write(installation.redis, name, key.kind if there else rng.choice(garbage.TYPES), rng)
    for prefix in (OPEN, RUN):  # and into what is known of an event and of a run
        names = [name async for name in installation.redis.scan_iter(match=prefix + "*", count=1000)]
        if names and rng.random() < 0.2:
            await garbage.write(installation.redis, rng.choice(names), "hash", rng)
    await asyncio.sleep(0.02)  # how often garbage comes


async def _clean(installation: Installation) -> bool:
    return not await garbage.misplaced(installation.redis, KEYS)


async def _ask(installation: Installation) -> None:
    """What tells how the roles are tells it all the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICE_REDIS_URL", installation.valkey.url)
        settings = load_settings()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{installation.api_port}", timeout=20) as client:
        while True:
            for path in ("/health/live", "/health/ready", "/metrics"):
                answer = await client.get(path)
                assert answer.status_code in {200, 503}, f"{path} answers {answer.status_code}: {answer.text}"
            _, status = await read_status(settings)
            assert status["roles"]
            await asyncio.sleep(0.2)


async def _settled(installation: Installation, load: Load) -> Verdict:
    """The verdict once every event is done, or the last one when that takes longer than a minute."""
    deadline = time.monotonic() + 60
    waiting: int | str = "nobody knows how much"
    while time.monotonic() < deadline:
        try:
            waiting = await installation.waiting()
        except (SluiceError, ResponseError) as error:
            waiting = str(error)
        if not waiting:
            verdict = await judge(installation, load, letters=EXPECTED_LETTERS)
            if not verdict.wrong:
                return verdict
            waiting = "\n".join(verdict.wrong[:10])
        await asyncio.sleep(0.5)
    queues = DispatchQueues(installation.redis)
    lengths = await queues.lengths(await queues.names())
    depth = await Journal(installation.redis, JournalSettings()).depth()
    reports = [
        f"{report['role']} {part}: {status}"
        for report in await read_reports(installation.redis)
        for part, status in report["parts"].items()
        if part in {"router", "dispatcher"} or status.get("degraded")
    ]
    active: Any = await installation.redis.sunion(f"{ACTIVE}tenth", f"{ACTIVE}{faults_answers.RULE}")
    for run in await installation.runs():
        if run["id"].encode() in active:
            known = await installation.redis.hgetall(f"{RUN}{run['id']}")
            due = await installation.redis.zscore(RUNS, run["id"])
            reports.append(
                f"{run['id']} is {run['state_name']} since {run['state']['timestamp']}, {known}, asked {due}"
            )
            active.discard(run["id"].encode())
    reports.append(f"active and unknown to Prefect: {active}")
    raise AssertionError(f"not every event is done: {waiting}\n{depth}\n{lengths}\n" + "\n".join(reports))
