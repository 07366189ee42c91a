"""The executor's part in its role process: joins intake, process pool and register of executions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import structlog

from config.settings import ExecutorSettings, LogSettings, RedisSettings
from events.errors import SluiceError
from services.executor.end_reason import FINALIZER_SECONDS, EndReason
from services.executor.finalizing.lost_runs import Debt, LostRuns
from services.executor.finalizing.unrecorded_runs import UnrecordedRuns
from services.executor.intake.job_enqueuer import JobEnqueuer
from services.executor.intake.run_intake import RunIntake
from services.executor.intake.run_policy import Priority, RunPolicy, queue_name, queue_names
from services.executor.pipes import Message
from services.executor.pool.fork_server_handle import environment_of_flows, sources_of
from services.executor.pool.process_pool import ProcessPool, SlotState
from services.executor.pool.process_template import ProcessTemplate
from services.prefect_api import deployments as deployment_calls
from services.prefect_api import run_calls
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import Deployment, DueRun
from services.prefect_api.events import Connected, StateChange, emit, run_event, state_changes
from services.prefect_api.runs import FINAL_TYPES
from services.prefect_api.server_options import read_server_options
from services.store.connection import connect_sync
from services.store.runs.executions import Execution, Executions
from services.store.runs.registered_files import RegisteredFiles

log = structlog.get_logger()

DEPTH_SECONDS: Final = 2.0
HEARTBEAT_SECONDS: Final = 60.0
MINUTE: Final = 60.0
ASK_SECONDS: Final = 5.0
"""How often the server is asked for the options that every run needs."""


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
        folders: Sequence[str] = (),
        contracts: Sequence[str] = (),
        process_template: ProcessTemplate | None = None,
    ) -> None:
        self._settings = settings
        self._prefect = prefect
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._told: Message = {
            "name": self._name,
            "executor": settings.name,
            "queues": queue_names(settings.name),
            "mode": settings.mode,
            "grace_seconds": settings.grace_seconds,
            "lost_seconds": settings.lost_seconds,
            "redis_url": redis_url,
            "redis": redis_settings.model_dump(mode="json"),
            "log": log_settings.model_dump(mode="json"),
            "environment": environment_of_flows(
                os.environ, prefect_api_url=prefect.url, folders=folders, contracts=contracts
            ),
            "shelf": str(home / "executor" / "shelf"),
        }
        redis = connect_sync(redis_url, redis_settings)
        self._executions = Executions(redis, name=settings.name, alive_seconds=settings.lost_seconds)
        registered = RegisteredFiles(redis)
        self._queueing = JobEnqueuer(redis, held=self._executions.holds)
        self._sweeper = LostRuns(executions=self._executions, instance=self._name, lost_seconds=settings.lost_seconds)
        self._unheld = UnrecordedRuns(
            in_process=partial(run_calls.in_process, prefect),
            claimed=partial(run_calls.was_claimed, prefect),
            lost_seconds=settings.lost_seconds,
        )
        self._pool = ProcessPool(
            slot_numbers=settings.slots,
            waiting=settings.waiting,
            assignment=lambda path, sources: {**self._told, "socket": path, "sources": sources},
            listener=self,
            unblock=self._unblock,
            recheck_seconds=settings.recheck_seconds,
            halted_seconds=settings.lost_seconds,
            warms=settings.mode == "fork",
            process_template=process_template,
        )
        self._intake = RunIntake(
            prefect=_Port(prefect, refresh=lambda: self._queueing.call(registered.refresh)),
            enqueue=self._queueing.put,
            policy=RunPolicy(executor=settings.name, globs=settings.deployments, registered=registered.get),
            running=lambda: list(self._pool.running),
            tell=self._pool.tell,
            changed=lambda deployments: self._pool.set_sources(sources_of(deployments)),
            settings=settings,
        )
        self._debts: dict[str, tuple[Debt, float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._depth, self._oldest = 0, 0.0
        self._starts: deque[float] = deque(maxlen=1000)
        self._latencies: deque[float] = deque(maxlen=500)

    async def run(self) -> None:
        """Execute runs until cancelled; active runs then have ``stop_seconds`` before they are handed back."""
        try:
            async with asyncio.TaskGroup() as group:
                for work in (
                    self._intake.run,
                    self._pool.run,
                    self._measure,
                    self._sweep,
                    self._beat,
                    self._ask,
                    self._look_for_unheld,
                ):
                    group.create_task(work())
        finally:
            await self._pool.end(finish_seconds=self._settings.stop_seconds)
            for task in list(self._tasks):
                task.cancel()
            with contextlib.suppress(SluiceError, TimeoutError):
                await asyncio.wait_for(self._queueing.call(partial(self._executions.leave, self._name)), 0.5)
            self._queueing.close()

    def status(self) -> Mapping[str, Any]:
        """Slots, active runs, queued jobs, and the times in which runs start."""
        now = time.time()
        broken = self._pool.files.problems
        problems = [f"the flow {name} does not import: {problem}" for name, problem in sorted(broken.items())]
        intake = self._intake.status()
        if "degraded" in intake:
            problems.insert(0, intake["degraded"])
        running = self._pool.running
        if self._pool.blocked:
            problems.insert(0, self._blocked())
        return {
            "ready": bool(self._pool.slots) and bool(intake["listening"]),
            "name": self._settings.name,
            "slots": self._settings.slots,
            "slots_ready": len(self._pool.slots),
            "running": len(running),
            "runs": [
                {"run": run, "slot": slot.number, "seconds": round(now - slot.since, 1), "waits": slot.waiting}
                for run, slot in running.items()
            ],
            "paused": self._pool.waiting,
            "waiting": self._depth,
            "waiting_for_their_time": intake["waiting_for_their_time"],
            "oldest_waiting_seconds": self._oldest,
            "unsettled": len(self._debts),
            "starts_per_minute": sum(1 for moment in self._starts if now - moment < MINUTE),
            "start_latency_seconds": _latency(self._latencies),
            "deployments": intake["deployments"],
            "broken_flows": dict(broken),
            **({"degraded": "; ".join(problems)} if problems else {}),
        }

    def _blocked(self) -> str:
        return (
            f"all slots are held by {self._pool.waiting} runs that wait, and no other run can start until one of "
            f"them goes on: there are {self._settings.slots} slots, and executor.waiting lets {self._settings.waiting} "
            "runs wait beside them; raise it, or have long waits suspend their run (suspend=True)"
        )

    def busy(self, slot: SlotState) -> None:
        """A run begins."""
        self._starts.append(slot.since)

    def started(self, slot: SlotState, at: float) -> None:
        """A flow is about to run."""
        self._latencies.append(at - slot.queued)

    def early(self, run_id: str, state_id: str, until: float) -> None:
        """A run was taken before its time."""
        queue = queue_name(self._settings.name, Priority.NORMAL)
        self._intake.not_before(run_id, state_id, queue, datetime.fromtimestamp(until, UTC))

    def orphaned(self, run_id: str, since: float) -> None:
        """A run's slot died."""
        execution = Execution(run_id=run_id, instance=self._name, since=since)
        self._settle(Debt(execution, EndReason.LOST, "The slot that ran the run died, and the run with it."))

    def settled(self, run_id: str, *, ok: bool) -> None:
        """A run was finalized; where it was not (``ok`` is false), the next sweep tries again."""
        debt, _ = self._debts.pop(run_id, (None, 0.0))
        if debt is not None and ok:
            self._spawn(partial(self._executions.end, debt.execution))

    async def _unblock(self, client: int) -> None:
        with contextlib.suppress(SluiceError):
            await self._queueing.unblock(client)

    async def _measure(self) -> None:
        while True:
            with contextlib.suppress(SluiceError):
                self._depth, self._oldest = await self._queueing.waiting(queue_names(self._settings.name))
            await asyncio.sleep(DEPTH_SECONDS)

    async def _sweep(self) -> None:
        while True:
            with contextlib.suppress(SluiceError):
                running = {run_id: slot.since for run_id, slot in self._pool.running.items()}
                for debt in await self._queueing.call(partial(self._sweeper.sweep, running)):
                    self._settle(debt)
            await asyncio.sleep(self._settings.lost_seconds / 4)

    async def _look_for_unheld(self) -> None:
        async def held() -> set[str]:
            return {*self._pool.running, *await self._queueing.call(self._executions.held_by_anyone)}

        while True:
            await asyncio.sleep(self._settings.lost_seconds)
            with contextlib.suppress(SluiceError):
                for run_id in await self._unheld.look(self._intake.deployment_ids, held):
                    debt = await self._queueing.call(partial(self._sweeper.take, run_id))
                    if debt is not None:
                        log.warning("finalizing a lost run", run=run_id)
                        self._settle(debt)

    async def _beat(self) -> None:
        """Send Prefect's heartbeats, which automations for lost runs expect; the first when a run is a minute old."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            old = time.time() - HEARTBEAT_SECONDS
            runs = [run for run, slot in self._pool.running.items() if slot.since < old]
            events = [run_event("prefect.flow-run.heartbeat", run_id=run, payload={}) for run in runs]
            with contextlib.suppress(SluiceError):
                await emit(self._prefect, events)

    async def _ask(self) -> None:
        """Ask the server for its options three times within their lifetime, so that one failed request does no harm."""
        while True:
            asked = time.monotonic()
            with contextlib.suppress(SluiceError):
                options = await read_server_options(self._prefect, client=f"sluice-executor-{self._settings.name}")
                self._pool.remember({"csrf": options.csrf, "result_storage": options.result_storage, "at": asked})
            await asyncio.sleep(ASK_SECONDS)

    def _settle(self, debt: Debt) -> None:
        """Have the run finalized; where that is not possible now, it is tried again later."""
        run_id = debt.execution.run_id
        _, asked = self._debts.get(run_id, (debt, -FINALIZER_SECONDS))
        if time.monotonic() - asked >= FINALIZER_SECONDS and self._pool.settle(run_id, debt.ending, debt.message):
            self._debts[run_id] = (debt, time.monotonic())

    def _spawn(self, work: partial[None]) -> None:
        async def do() -> None:
            with contextlib.suppress(SluiceError):  # the next sweep finds the record again, and the run finalized
                await self._queueing.call(work)

        task = asyncio.create_task(do())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Port:
    """The calls to Prefect that the intake makes."""

    def __init__(self, api: PrefectApi, *, refresh: Callable[[], Awaitable[None]]) -> None:
        self._api = api
        self._refresh = refresh

    async def without_work_pool(self) -> list[Deployment]:
        with contextlib.suppress(SluiceError):
            await self._refresh()
        return await deployment_calls.without_work_pool(self._api)

    async def read(self, deployment_id: str) -> Deployment:
        with contextlib.suppress(SluiceError):
            await self._refresh()
        return await deployment_calls.read(self._api, deployment_id)

    async def due(self, deployment_ids: Sequence[str], *, before: datetime) -> list[DueRun]:
        return await deployment_calls.due(self._api, deployment_ids, before=before)

    async def stopped(self, run_ids: Sequence[str]) -> list[run_calls.Stopped]:
        return await run_calls.stopped(self._api, run_ids)

    def changes(self) -> AsyncIterator[StateChange | Connected]:
        return state_changes(state_types=["SCHEDULED", "CANCELLING", "PAUSED", *sorted(FINAL_TYPES)])


def _latency(samples: Sequence[float]) -> dict[str, float] | None:
    if len(samples) < 2:  # noqa: PLR2004 - quantiles need two
        return None
    cuts = quantiles(samples, n=100)
    return {"p50": round(cuts[49], 3), "p99": round(cuts[98], 3)}
