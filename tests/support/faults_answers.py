"""Runs that wait while everything breaks, the answers that they are given, and the ones that they received."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from config.settings import ResumerSettings
from events.errors import SluiceError
from services.store.connection import AsyncRedis
from services.store.signals.signals import SignalStore
from tests.support.confirmed import confirmed

DEPLOYMENT = "asks"
RULE = "asking"
ROUNDS = 2
"""Waits of each run, one after the other: numbers that end in 7 pause, and every other one of them suspends."""

FLOW_SOURCE = """
import json
import os

from prefect import flow
from prefect.runtime import flow_run

from case_flow import begin
from sluice import wait_for_signal

@flow(name="fault")
def ask(n: int) -> None:
    begin({processes!r})
    for turn in range({rounds}):
        answer = wait_for_signal(f"fault {{n}} {{turn}}", suspend=n % 20 == 7)
        line = json.dumps({{"turn": turn, "token": answer.get("token"), "run": str(flow_run.id)}})
        descriptor = os.open(f"{folder}/{{n}}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(descriptor, (line + "\\n").encode())
        os.close(descriptor)
"""


def wanted(n: int) -> bool:
    """Whether the event with that number starts a run that waits."""
    return n % 10 == 7


@dataclass
class AnswerVerdict:
    """``waited``: runs that waited and ended. ``received``: lines noted, a run that is lost notes its answers again."""

    waited: int = 0
    wanted: int = 0
    received: Counter[tuple[int, int]] = field(default_factory=Counter)
    """By number and turn: how many different answers the run received there."""
    wrong: list[str] = field(default_factory=list)


class Answers:
    """Sends one answer for each wait, early or late, each until it is taken and now and then twice under its id."""

    def __init__(self, redis: AsyncRedis, *, api_port: int, rng: random.Random) -> None:
        self._redis = redis
        self._rng = rng
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{api_port}", timeout=5)
        self._begun: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.ways: Counter[str] = Counter()
        """Messages that were taken, by their way in; and ``again``."""

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()

    async def run(self, numbers: Mapping[int, str], more: Mapping[int, str]) -> None:
        """Answer for every number that shows up in either, until cancelled. They map numbers to the sources' names."""
        while True:
            for n, source in (dict(numbers) | dict(more)).items():
                if wanted(n) and source != "files" and n not in self._begun:
                    self._begun.add(n)
                    for turn in range(ROUNDS):
                        task = asyncio.create_task(self._answer(n, turn))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(0.1)

    async def _answer(self, n: int, turn: int) -> None:
        await asyncio.sleep(self._rng.choice([0, self._rng.uniform(0, 3), self._rng.uniform(0, 15)]))
        times = 2 if self._rng.random() < 0.2 else 1
        for _ in range(times):
            await self._until_taken(self._rng.choice(["stream", "http"]), n, turn)
        self.ways["again"] += times - 1

    async def _until_taken(self, way: str, n: int, turn: int) -> None:
        message = {"id": token(n, turn), "key": f"fault {n} {turn}", "input": {"token": token(n, turn)}}
        while True:
            try:
                if way == "stream":
                    await confirmed(self._redis, "XADD", "sluice.resume", "*", "event", json.dumps(message))
                else:
                    (await self._http.post("/signals", json=message)).raise_for_status()
            except (SluiceError, httpx.HTTPError):
                await asyncio.sleep(self._rng.uniform(0.05, 0.5))
            else:
                self.ways[way] += 1
                return


def token(n: int, turn: int) -> str:
    """What the answer to that wait is known by; its signal's id, too."""
    return f"answer-{n}-{turn}"


async def judge_answers(
    redis: AsyncRedis, folder: Path, runs: list[dict[str, Any]], *, cut_off: set[str]
) -> AnswerVerdict:
    """Hold what the runs received against what they were sent. ``runs`` wait; ``cut_off`` are excused."""
    verdict = AnswerVerdict()
    store = SignalStore(redis, ResumerSettings())
    runs_of = {int(run["parameters"]["n"]): run for run in runs}
    for n in _numbers(folder) - set(runs_of):
        verdict.wrong.append(f"answers were received for {n}, which has no run")
    for n, run in runs_of.items():
        if run["id"] in cut_off:
            continue
        verdict.waited += run["state_type"] == "COMPLETED"
        lines = _lines(folder / str(n))
        verdict.wrong += [
            f"{line} was received by another run than {run['id']}" for line in lines if line["run"] != run["id"]
        ]
        for turn in range(ROUNDS):
            verdict.wanted += 1
            got = {line["token"] for line in lines if line["turn"] == turn}
            verdict.received[n, turn] = len(got)
            if got != {token(n, turn)}:
                state = f"{run['state_name']}: {run['state']['message']}"
                verdict.wrong.append(f"{run['id']} ({state}) received {got or 'nothing'} instead of {token(n, turn)}")
    known = {record.signal.id: record for record in await store.get_many([token(*key) for key in verdict.received])}
    for key in verdict.received:
        record = known.get(token(*key))
        if record is None or record.status != "applied":
            told = f"{record.status} ({record.reason})" if record else "unknown"
            verdict.wrong.append(f"{token(*key)} is told to be {told}")
    return verdict


def _numbers(folder: Path) -> set[int]:
    return {int(file.name) for file in folder.iterdir()}


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
