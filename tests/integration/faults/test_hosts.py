"""The promise of Sluice on several hosts: one run for each event and rule, whichever host fails and whichever cable.

Hosts are network namespaces: a Valkey with a replica, three Sentinels, two Prefect servers on a PostgreSQL, and two
hosts with a listener, a router, a resumer and an executor each. They are cut off, reached in one direction only, lose
packets, are slow, are killed and rolled at random, Valkey fails over and PostgreSQL is killed, while events come in
over every source and runs wait for answers. Then every role is rolled to another version of Sluice under the same load.
Sources and publishers ask for one replica. ``FAULTS_SEED`` repeats the faults, ``HOSTS_SECONDS`` sets how long they go
on, and ``HOSTS_PAUSE`` how many seconds are between two events.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from pathlib import Path

import httpx
import pytest

from tests.integration.faults.conftest import Say
from tests.support.faults_answers import Answers
from tests.support.faults_load import Load
from tests.support.faults_outcome import at_rest, settled, table
from tests.support.networks import hosts
from tests.support.next_version import next_version
from tests.support.several_hosts import HOSTS, ROLE_HOSTS, SeveralHosts
from tests.support.several_prefects import PREFECTS
from tests.support.waiting import eventually

SECONDS = float(os.environ.get("HOSTS_SECONDS", "45"))
PAUSE_SECONDS = float(os.environ.get("HOSTS_PAUSE", "0.25"))


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_every_event_has_its_runs_and_no_more_on_several_hosts(tmp_path: Path, seed: int, say: Say) -> None:
    say(f"seed {seed} (FAULTS_SEED={seed}), logs in {tmp_path}")
    with hosts(HOSTS) as made:
        async with SeveralHosts(tmp_path, made) as installation:
            await installation.becomes_ready(120)
            load = Load(installation, random.Random(seed + 1))
            publishing = asyncio.create_task(load.run(pause_seconds=PAUSE_SECONDS))
            answers = Answers(installation.redis, api_port=installation.api_port, rng=random.Random(seed + 4))
            answering = asyncio.create_task(answers.run(load.sure, load.unsure))
            started = time.monotonic()
            await asyncio.gather(
                _hurt(installation, random.Random(seed + 2), started + SECONDS),
                _hurt_redis(installation, random.Random(seed + 3), started + SECONDS),
                _hurt_prefect(installation, random.Random(seed + 5), started + SECONDS),
            )
            hurt_for = time.monotonic() - started
            await _stopped(publishing)
            piled_up = await at_rest(installation, 120)
            await installation.becomes_ready(120)
            publishing = asyncio.create_task(load.run(pause_seconds=PAUSE_SECONDS))
            await installation.upgrade(await asyncio.to_thread(next_version, tmp_path / "next"))
            await _stopped(publishing)
            times = await _times_of_take_over(installation, load)
            await load.calm(2)
            calm = time.monotonic()
            verdict = await settled(installation, load, 120)
            await _stopped(answering)
            took = f"{hurt_for:.0f} s, {piled_up:.0f} s, {time.monotonic() - calm:.0f} s"
            facts = {"seed": seed, "faults, what had piled up, settling": took, **times}
            say(table(facts, installation, load, answers, verdict))
            await load.aclose()
            await answers.aclose()
            assert not installation.failed_roles(), f"logs in {tmp_path}"
            assert not verdict.wrong, "\n".join([f"seed {seed}, logs in {tmp_path}", *verdict.wrong[:20]])


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _hurt(installation: SeveralHosts, rng: random.Random, until: float) -> None:
    while time.monotonic() < until:
        await installation.hurt(rng)
        await asyncio.sleep(rng.uniform(0.5, 2))


async def _hurt_redis(installation: SeveralHosts, rng: random.Random, until: float) -> None:
    while time.monotonic() < until:
        await installation.hurt_redis(rng)
        await asyncio.sleep(rng.uniform(1, 4))


async def _hurt_prefect(installation: SeveralHosts, rng: random.Random, until: float) -> None:
    while time.monotonic() < until:
        await installation.hurt_prefect(rng)
        await asyncio.sleep(rng.uniform(1, 6))


async def _times_of_take_over(installation: SeveralHosts, load: Load) -> dict[str, object]:
    """From the fault to the run of an event that is published behind it."""
    found: dict[str, object] = {
        "piled up in the upgrade, until it was done": f"{await at_rest(installation, 120):.0f} s"
    }
    found["event to run, nothing broken"] = await _to_the_run(installation, load, time.monotonic())
    for role, words in (("router", "dispatches"), ("listeners", "reads"), ("executor", "executes")):
        began = time.monotonic()
        installation.kill_role(role, ROLE_HOSTS[0], down_seconds=20)
        found[f"{role} killed on a host, which perhaps {words}, to the next run"] = await _to_the_run(
            installation, load, began
        )
    for host in ROLE_HOSTS:
        began = time.monotonic()
        installation.kill_host(host, down_seconds=20)
        found[f"host of roles {host} killed, to the next run"] = await _to_the_run(installation, load, began)
        await asyncio.sleep(
            max(0.0, began + 25 - time.monotonic())
        )  # both hosts are there when the other one is killed
    for what, fault in (
        ("primary killed, back as a replica after 5 s", installation.kill_primary(5)),
        ("a Prefect server killed", installation.prefects.restart_prefect("prefect-a", 0, in_order=False)),
        ("PostgreSQL restarted", asyncio.to_thread(installation.prefects.restart_postgresql)),
        ("cable of a host of roles cut for 15 s", installation.cut_host(ROLE_HOSTS[0], 15)),
        ("cable of a Prefect server cut for 15 s", installation.cut_host(PREFECTS[0], 15)),
    ):
        began = time.monotonic()
        hurting = asyncio.ensure_future(fault)
        found[f"{what}, to the next run"] = await _to_the_run(installation, load, began)
        await hurting
        await installation.becomes_ready(120)
    return found


async def _to_the_run(installation: SeveralHosts, load: Load, began: float) -> str:
    id_ = await load.one_over_http()

    async def created() -> bool:
        body = {"flow_runs": {"tags": {"any_": [f"event:{id_}"]}}}
        try:
            answer = await installation.prefect.post("/flow_runs/filter", json=body)
        except httpx.HTTPError:
            return False
        return answer.is_success and bool(json.loads(answer.content))

    await eventually(created, within_seconds=120, what=f"the run of {id_}")
    return f"{time.monotonic() - began:.1f} s"
