"""The executor's part in its role process: joins intake, process pool and register of executions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from config.runs import ExecutorSettings
from config.settings import LogSettings, RedisSettings
from events.errors import SluiceError
from services.common.reasons import RETRYING, told
from services.executor.intake.run_intake import RunIntake
from services.executor.intake.run_policy import queue_names
from services.executor.job_enqueuer import JobEnqueuer
from services.executor.messages import Assignment, FlowStarted, ProcessMessage, RunBegan, RunFinalized, SlotIdle
from services.executor.pool.fork_server_handle import environment_of_flows
from services.executor.pool.process_pool import ProcessPool
from services.executor.pool.process_template import ProcessTemplate
from services.executor.pool.slots import Slots
from services.executor.reconciler import Reconciler
from services.prefect_api.client import PrefectApi
from services.prefect_api.events import emit, run_event
from services.prefect_api.server_options import read_server_options
from services.store.connection import connect_sync
from services.store.runs.executions import Executions
from services.store.runs.registered_files import RegisteredFiles

DEPTH_SECONDS: Final = 2.0
HEARTBEAT_SECONDS: Final = 60.0
MINUTE: Final = 60.0
END_SECONDS: Final = 8.0
"""Time that an executor takes to end after its runs' own time, with a reserve: handing back runs, ending fork servers,
and Redis."""
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
        held_seconds: float = 30.0,
    ) -> None:
        """``folders`` and ``contracts``: where flows may read files, and the project's contracts.

        ``held_seconds``: how long all slots may be held by waiting runs before that is reported.
        """
        self._settings = settings
        self._prefect = prefect
        self._queues = queue_names(settings.name)
        instance = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        redis = connect_sync(redis_url, redis_settings)
        executions = Executions(redis, name=settings.name, alive_seconds=settings.lost_seconds)
        self._enqueuer = JobEnqueuer(redis, held=executions.holds)
        environment = environment_of_flows(
            os.environ, prefect_api_url=prefect.url, folders=folders, contracts=contracts
        )
        self._pool = self._new_pool(
            Assignment(
                instance=instance,
                executor=settings.name,
                queues=tuple(self._queues),
                mode=settings.mode,
                grace_seconds=settings.grace_seconds,
                lost_seconds=settings.lost_seconds,
                redis_url=redis_url,
                redis=redis_settings,
                log=log_settings,
                environment=environment,
                shelf=home / "executor" / "shelf",
            ),
            process_template,
        )
        self._intake = self._new_intake(RegisteredFiles(redis))
        self._reconciler = self._new_reconciler(instance, executions)
        self._held_seconds = held_seconds
        self._held_since: float | None = None
        self._depth, self._oldest = 0, 0.0
        self._starts: deque[float] = deque(maxlen=1000)
        self._latencies: deque[float] = deque(maxlen=500)

    def _new_pool(self, assignment: Assignment, process_template: ProcessTemplate | None) -> ProcessPool:
        settings = self._settings
        return ProcessPool(
            assignment,
            slots=Slots(working=settings.slots, waiting=settings.waiting, enqueuer=self._enqueuer),
            heard=self._heard,
            orphaned=self._orphaned,
            recheck_seconds=settings.recheck_seconds,
            process_template=process_template,
        )

    def _new_intake(self, registered: RegisteredFiles) -> RunIntake:
        return RunIntake(
            prefect=self._prefect,
            enqueuer=self._enqueuer,
            registered=registered,
            pool=self._pool,
            settings=self._settings,
        )

    def _new_reconciler(self, instance: str, executions: Executions) -> Reconciler:
        return Reconciler(
            instance=instance,
            executions=executions,
            enqueuer=self._enqueuer,
            pool=self._pool,
            intake=self._intake,
            prefect=self._prefect,
            lost_seconds=self._settings.lost_seconds,
        )

    async def run(self) -> None:
        """Execute runs until cancelled; active runs then have the setting's ``stop_seconds`` to finish.

        Until the last of them has ended, the executor gives its sign of life, without which others would take them
        over, and receives states that others set, such as Cancelling.
        """
        try:
            async with asyncio.TaskGroup() as group:
                works = (self._intake.run, self._reconciler.run, self._measure, self._beat, self._ask)
                beside = [group.create_task(work()) for work in works]
                try:
                    await self._pool.run()
                finally:
                    await self._pool.end(finish_seconds=self._settings.stop_seconds)
                    await _end(beside)
        finally:
            await self._reconciler.leave()
            self._enqueuer.close()

    @property
    def stop_seconds(self) -> float:
        """How long `run` may take to end: the runs' time, and then the time to hand back those that are left."""
        return self._settings.stop_seconds + END_SECONDS

    def status(self) -> Mapping[str, Any]:
        """Slots, active runs, queued jobs, and the times in which runs start."""
        now = time.time()
        broken = self._pool.files.problems
        problems = [f"the flow {name} does not import: {problem}" for name, problem in sorted(broken.items())]
        intake, slots = self._intake.status(), self._pool.slots
        running = slots.running
        without = self._reconciler.without_process
        reasons: dict[str, str | None] = {
            **self._blocked(),
            "runs-without-process": _without_process(without),
            RETRYING: intake.get("degraded"),
            "flow-broken": "; ".join(problems),
        }
        return {
            "ready": bool(slots.by_pid) and bool(intake["listening"]),
            "name": self._settings.name,
            "slots": self._settings.slots,
            "slots_ready": len(slots.by_pid),
            "running": len(running),
            "runs": [
                {
                    "run": run.run_id,
                    "slot": slot.process.number,
                    "seconds": round(now - run.at, 1),
                    "waits": slot.waiting,
                }
                for slot in running.values()
                if (run := slot.run) is not None
            ],
            "paused": slots.waiting,
            "waiting": self._depth,
            "waiting_for_their_time": intake["waiting_for_their_time"],
            "oldest_waiting_seconds": self._oldest,
            "unsettled": self._reconciler.unsettled,
            "without_process": without,
            "starts_per_minute": sum(1 for moment in self._starts if now - moment < MINUTE),
            "start_latency_seconds": _latency(self._latencies),
            "deployments": intake["deployments"],
            "broken_flows": dict(broken),
            **told(reasons),
        }

    def _blocked(self) -> dict[str, str | None]:
        """Return the reason while all slots are held; it has another code once that has lasted."""
        if not self._pool.blocked:
            self._held_since = None
            return {}
        self._held_since = self._held_since or time.monotonic()
        lasting = time.monotonic() - self._held_since >= self._held_seconds
        sentence = (
            f"all slots are held by {self._pool.slots.waiting} runs that wait, and no other run can start until one of "
            f"them goes on: there are {self._settings.slots} slots, and executor.waiting lets {self._settings.waiting} "
            "runs wait beside them; raise it, or have long waits suspend their run (suspend=True)"
        )
        return {"slots-held" if lasting else "slots-full": sentence}

    def _heard(self, message: ProcessMessage, run: RunBegan | None) -> None:
        """Note a message of a slot for the statistics, or pass it on to the intake or the reconciler."""
        match message:
            case RunBegan():
                self._starts.append(message.at)
            case FlowStarted() if run is not None:
                self._latencies.append(message.at - run.queued)
            case SlotIdle(early_until=float() as until):
                self._intake.not_before(message.run_id, message.state_id, datetime.fromtimestamp(until, UTC))
            case RunFinalized():
                self._reconciler.finalized(message.run_id, ok=message.ok)
            case _:
                pass

    def _orphaned(self, run: RunBegan) -> None:
        self._reconciler.orphaned(run)

    async def _measure(self) -> None:
        while True:
            with contextlib.suppress(SluiceError):
                self._depth, self._oldest = await self._enqueuer.waiting(self._queues)
            await asyncio.sleep(DEPTH_SECONDS)

    async def _beat(self) -> None:
        """Send Prefect's heartbeats, which automations for lost runs expect; the first when a run is a minute old."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            old = time.time() - HEARTBEAT_SECONDS
            runs = [run_id for run_id, slot in self._pool.slots.running.items() if slot.run and slot.run.at < old]
            events = [run_event("prefect.flow-run.heartbeat", run_id=run_id, payload={}) for run_id in runs]
            with contextlib.suppress(SluiceError):
                await emit(self._prefect, events)

    async def _ask(self) -> None:
        """Ask the server for its options three times within their lifetime, so that one failed request does no harm."""
        while True:
            with contextlib.suppress(SluiceError):
                client = f"sluice-executor-{self._settings.name}"
                self._pool.remember(await read_server_options(self._prefect, client=client))
            await asyncio.sleep(ASK_SECONDS)


def _without_process(run_ids: Sequence[str]) -> str | None:
    if not run_ids:
        return None
    said = f"{len(run_ids)} runs are Pending, Running or Paused in Prefect, and no process executes them"
    return f"{said}, such as {run_ids[0]}"


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel the tasks; twice, because Python 3.11's asyncio.wait_for can swallow the first one."""
    for _ in range(2):
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=1)


def _latency(samples: Sequence[float]) -> dict[str, float] | None:
    if len(samples) < 2:  # noqa: PLR2004 - quantiles need two
        return None
    cuts = quantiles(samples, n=100)
    return {"p50": round(cuts[49], 3), "p99": round(cuts[98], 3)}
