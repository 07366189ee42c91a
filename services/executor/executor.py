"""The executor's part in its role process: keeps the slots alive, feeds them, and ends what is to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import structlog

from config.settings import ExecutorSettings, LogSettings, RedisSettings
from events.errors import SluiceError
from services.executor.catalog import Policy, queue_names
from services.executor.endings import AFTERMATH_SECONDS, Ending
from services.executor.exits import describe_exit
from services.executor.flowfiles import FlowFiles
from services.executor.generation import Generation, environment_of_flows, say, sources_of
from services.executor.intake import Intake
from services.executor.queueing import Queueing
from services.executor.sweep import Debt, Sweeper
from services.executor.wire import Message
from services.prefect_api import deployments as deployment_calls
from services.prefect_api import run_calls
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import Deployment, DueRun
from services.prefect_api.events import Connected, StateChange, state_changes
from services.store.connection import connect_sync
from services.store.executions import Execution, Executions

log = structlog.get_logger()

FIRST_SOURCES_SECONDS: Final = 3.0
"""How long the first warm parent waits to hear from Prefect which flows there are."""
LONGEST_LINE: Final = 16 * 1024 * 1024
RESTART_SECONDS: Final = 1.0
HAND_BACK_SECONDS: Final = 0.7
"""How long a run that is handed back has to end by itself before it is killed."""


@dataclass
class _Slot:
    number: int
    generation: int
    pid: int
    client: int
    writer: asyncio.StreamWriter
    run: str | None = None
    job: str | None = None
    horse: int | None = None
    since: float = 0.0


class Executor:
    """Runs flow runs of deployments without a work pool; many executors may run side by side."""

    def __init__(
        self,
        *,
        settings: ExecutorSettings,
        prefect: PrefectApi,
        redis_url: str,
        redis_settings: RedisSettings,
        log_settings: LogSettings,
        home: Path,
    ) -> None:
        self._settings = settings
        self._prefect = prefect
        self._redis_url = redis_url
        self._redis_settings = redis_settings
        self._log_settings = log_settings
        self._shelf = home / "executor" / "shelf"
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._queues = queue_names(settings.name)
        redis = connect_sync(redis_url, redis_settings)
        self._queueing = Queueing(redis)
        self._executions = Executions(redis, name=settings.name, alive_seconds=settings.lost_seconds)
        self._sweeper = Sweeper(executions=self._executions, instance=self._name, lost_seconds=settings.lost_seconds)
        self._debts: dict[str, tuple[Debt, float]] = {}
        self._policy = Policy(executor=settings.name, globs=settings.deployments)
        self._intake = Intake(
            prefect=_Port(prefect),
            enqueue=self._queueing.put,
            policy=self._policy,
            running=lambda: [slot.run for slot in self._slots.values() if slot.run],
            cancel=self._cancel,
            changed=self._deployments_changed,
            settings=settings,
        )
        self._slots: dict[int, _Slot] = {}
        self._generations: dict[int, Generation] = {}
        self._current: Generation | None = None
        self._files = FlowFiles()
        self._sources_known = asyncio.Event()
        self._renew = asyncio.Event()
        self._filled: dict[int, float] = {}
        self._directory = Path(tempfile.mkdtemp(prefix="sluice-"))
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._depth = 0
        self._starts: deque[float] = deque(maxlen=1000)
        self._latencies: deque[float] = deque(maxlen=500)

    async def run(self) -> None:
        """Execute runs until cancelled; then what still runs has `stop_seconds` before it is handed back."""
        server = await asyncio.start_unix_server(self._serve, path=str(self._socket), limit=LONGEST_LINE)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._intake.run())
                group.create_task(self._keep_warm())
                group.create_task(self._measure())
                group.create_task(self._watch_files())
                group.create_task(self._sweep())
        finally:
            self._stopping = True
            await self._end()
            with contextlib.suppress(SluiceError, TimeoutError):
                await asyncio.wait_for(self._queueing.call(partial(self._executions.leave, self._name)), 0.5)
            server.close()
            for handler in self._handlers:
                handler.cancel()
            await asyncio.gather(*self._handlers, return_exceptions=True)
            self._queueing.close()
            shutil.rmtree(self._directory, ignore_errors=True)

    def status(self) -> Mapping[str, Any]:
        """Slots, what runs, what waits, and how fast runs start."""
        now = time.time()
        running = [slot for slot in self._slots.values() if slot.run]
        broken = self._files.problems
        problems = [f"the flow {name} does not import: {problem}" for name, problem in sorted(broken.items())]
        intake = self._intake.status()
        if "degraded" in intake:
            problems.insert(0, intake["degraded"])
        return {
            "ready": bool(self._slots) and bool(intake["listening"]),
            "name": self._settings.name,
            "slots": self._settings.slots,
            "slots_ready": len(self._slots),
            "running": len(running),
            "runs": [{"run": slot.run, "slot": slot.number, "seconds": round(now - slot.since, 1)} for slot in running],
            "waiting": self._depth,
            "waiting_for_their_time": intake["waiting_for_their_time"],
            "unsettled": len(self._debts),
            "starts_per_minute": sum(1 for moment in self._starts if now - moment < 60),  # noqa: PLR2004 - a minute
            "start_latency_seconds": _latency(self._latencies),
            "deployments": intake["deployments"],
            "broken_flows": dict(broken),
            **({"degraded": "; ".join(problems)} if problems else {}),
        }

    @property
    def _socket(self) -> Path:
        return self._directory / "executor.sock"

    async def _keep_warm(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._sources_known.wait(), FIRST_SOURCES_SECONDS)
        number = 0
        while True:
            number += 1
            generation = await Generation.start(number, self._assignment())
            self._generations[number] = generation
            ending = self._spawn(self._outlive(generation))
            renewing = asyncio.create_task(self._renew.wait())
            await asyncio.wait({ending, renewing}, return_when=asyncio.FIRST_COMPLETED)
            renewing.cancel()
            if ending.done():
                await asyncio.sleep(RESTART_SECONDS)
            self._renew.clear()

    async def _outlive(self, generation: Generation) -> None:
        code = await generation.process.wait()
        self._generations.pop(generation.number, None)
        if self._current is generation:
            self._current = None
            if not self._stopping:
                log.warning("the warm parent ended, starting another", generation=generation.number, code=code)
        self._retire(generation.number)

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(self._settings.recheck_seconds)
            if self._current is not None and self._settings.mode == "fork":
                changed = self._files.to_probe()
                if changed:
                    self._current.say(do="probe", sources=changed)

    def _assignment(self) -> Message:
        settings = self._settings
        return {
            "socket": str(self._socket),
            "name": self._name,
            "queues": self._queues,
            "mode": settings.mode,
            "executor": settings.name,
            "lost_seconds": settings.lost_seconds,
            "grace_seconds": settings.grace_seconds,
            "redis_url": self._redis_url,
            "redis": self._redis_settings.model_dump(mode="json"),
            "log": self._log_settings.model_dump(mode="json"),
            "environment": environment_of_flows(os.environ, prefect_api_url=self._prefect.url),
            "shelf": str(self._shelf),
            "sources": self._files.sources,
        }

    def _retire(self, generation: int) -> None:
        """Have the slots of a generation end after what they run."""
        for slot in self._slots.values():
            if slot.generation == generation:
                say(slot.writer, do="stop")
                self._spawn(self._unblock(slot))

    async def _unblock(self, slot: _Slot) -> None:
        with contextlib.suppress(SluiceError):
            await self._queueing.unblock(slot.client)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        if handler is not None:
            self._handlers.add(handler)
            handler.add_done_callback(self._handlers.discard)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # this task is ours alone; asyncio logs it otherwise
                await self._attend(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        speaker: _Slot | Generation | None = None
        with contextlib.suppress(OSError, ValueError):
            async for line in reader:
                message = decode(line)
                match message["kind"]:
                    case "probed":
                        self._note(message)
                    case "warm":
                        speaker = self._generations.get(message["generation"])
                        if speaker is not None:
                            self._welcome(speaker, message, writer)
                    case "slot":
                        speaker = _Slot(
                            message["number"], message["generation"], message["pid"], message["client"], writer
                        )
                        self._slots[speaker.number] = speaker
                    case "settled":
                        self._spawn(self._settled(message["run"], ok=message["ok"]))
                    case "slot-ended":
                        self._spawn(self._refill(message["number"], message["status"]))
                    case _ if isinstance(speaker, _Slot):
                        self._hear(speaker, message)
        if isinstance(speaker, _Slot):
            self._gone(speaker)

    def _welcome(self, generation: Generation, message: Message, writer: asyncio.StreamWriter) -> None:
        generation.writer = writer
        generation.ready = True
        generation.libraries = frozenset(message["libraries"])
        log.info("slots are warm", generation=generation.number, libraries=len(generation.libraries))
        previous, self._current = self._current, generation
        if previous is not None:
            previous.say(do="stop")
            self._retire(previous.number)
        for number in range(self._settings.slots):
            if number not in self._slots:
                self._fill(number)

    def _fill(self, number: int) -> None:
        """Start a slot where none is."""
        if self._current is not None and not self._stopping:
            self._filled[number] = time.monotonic()
            self._current.say(do="start-slot", number=number)

    async def _refill(self, number: int, status: int) -> None:
        if status and not self._stopping:
            log.warning("a slot died, starting another", slot=number, how=describe_exit(status))
        await asyncio.sleep(self._filled.get(number, 0.0) + RESTART_SECONDS - time.monotonic())
        if number not in self._slots:
            self._fill(number)

    def _hear(self, slot: _Slot, message: Message) -> None:
        match message["kind"]:
            case "busy":
                slot.run, slot.job, slot.horse, slot.since = (
                    message["run"],
                    message["job"],
                    message["pid"],
                    message["at"],
                )
                self._starts.append(message["at"])
            case "started":
                self._latencies.append(message["at"] - slot.since)
            case "idle":
                slot.run = slot.job = slot.horse = None
                outcome = message["outcome"]
                if outcome["step"] == "early":
                    moment = datetime.fromtimestamp(outcome["until"], UTC)
                    self._intake.not_before(message["run"], message["job"], self._queues[1], moment)
            case _:
                pass

    def _gone(self, slot: _Slot) -> None:
        if self._slots.get(slot.number) is slot:
            del self._slots[slot.number]
        if slot.generation not in self._generations:
            self._spawn(self._refill(slot.number, 0))
        if slot.horse is not None and slot.run is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(slot.horse, signal.SIGKILL)
            execution = Execution(run_id=slot.run, instance=self._name, since=slot.since)
            self._settle(Debt(execution, Ending.LOST, "The slot that ran the run died, and the run with it."))

    async def _sweep(self) -> None:
        while True:
            running = {slot.run for slot in self._slots.values() if slot.run}
            with contextlib.suppress(SluiceError):
                for debt in await self._queueing.call(partial(self._sweeper.sweep, running)):
                    self._settle(debt)
            await asyncio.sleep(self._settings.lost_seconds / 4)

    def _settle(self, debt: Debt) -> None:
        """Have a process of the warm parent tell Prefect; one that does not answer is tried again after a while."""
        _, asked = self._debts.get(debt.execution.run_id, (debt, -AFTERMATH_SECONDS))
        if self._current is None or time.monotonic() - asked < AFTERMATH_SECONDS:
            return
        self._debts[debt.execution.run_id] = (debt, time.monotonic())
        self._current.say(do="settle", run=debt.execution.run_id, ending=debt.ending, message=debt.message)

    async def _settled(self, run_id: str, *, ok: bool) -> None:
        debt, _ = self._debts.pop(run_id, (None, 0.0))
        if debt is not None and ok:
            with contextlib.suppress(SluiceError):  # the next sweep finds it again, and Prefect says that it is settled
                await self._queueing.call(partial(self._executions.end, debt.execution))

    def _cancel(self, run_id: str) -> None:
        for slot in self._slots.values():
            if slot.run == run_id:
                log.info("cancelling a run", run=run_id)
                say(slot.writer, do="cancel", run=run_id)

    def _deployments_changed(self, deployments: Sequence[Deployment]) -> None:
        self._files.set_sources(sources_of(deployments))
        self._sources_known.set()

    def _note(self, message: Message) -> None:
        news = self._files.note(message)
        if news:
            log.warning("a flow does not import", **message["source"], problem=news)
        elif news is not None:
            log.info("a flow imports again", **message["source"])
        if self._current is not None and not self._files.libraries <= self._current.libraries:
            log.info("flows need more libraries, warming up anew")
            self._renew.set()

    async def _measure(self) -> None:
        while True:
            with contextlib.suppress(SluiceError):
                self._depth = await self._queueing.depth(self._queues)
            await asyncio.sleep(2)

    async def _end(self) -> None:
        generations = list(self._generations.values())
        for generation in generations:
            generation.say(do="stop")
            self._retire(generation.number)
        await self._slots_gone(self._settings.stop_seconds)
        for slot in list(self._slots.values()):
            say(slot.writer, do="hand-back", seconds=HAND_BACK_SECONDS)
        await self._slots_gone(HAND_BACK_SECONDS + 1.5)
        for generation in generations:
            await generation.end(within_seconds=0.3)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _slots_gone(self, within_seconds: float) -> None:
        deadline = time.monotonic() + within_seconds
        while self._slots and time.monotonic() < deadline:  # noqa: ASYNC110 - ends within seconds
            await asyncio.sleep(0.02)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Port:
    """The intake's view of Prefect."""

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def without_work_pool(self) -> list[Deployment]:
        return await deployment_calls.without_work_pool(self._api)

    async def read(self, deployment_id: str) -> Deployment:
        return await deployment_calls.read(self._api, deployment_id)

    async def due(self, deployment_ids: Sequence[str], *, before: datetime) -> list[DueRun]:
        return await deployment_calls.due(self._api, deployment_ids, before=before)

    async def cancelling(self, run_ids: Sequence[str]) -> list[str]:
        return await run_calls.cancelling(self._api, run_ids)

    def changes(self) -> AsyncIterator[StateChange | Connected]:
        return state_changes()


def decode(line: bytes) -> Message:
    """One line of the wire."""
    import json

    message: Message = json.loads(line)
    return message


def _latency(samples: Sequence[float]) -> dict[str, float] | None:
    if len(samples) < 2:  # noqa: PLR2004 - quantiles need two
        return None
    cuts = quantiles(samples, n=100)
    return {"p50": round(cuts[49], 3), "p99": round(cuts[98], 3)}
