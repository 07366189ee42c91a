"""The intake: receives scheduled runs and puts each on the runs queue when it is due, each state once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import structlog

from config.settings import ExecutorSettings
from events.errors import Backpressure, NotFound, SluiceError, TransientError
from services.executor.intake.run_policy import RunPolicy
from services.prefect_api.deployments import Deployment, DueRun
from services.prefect_api.events import Connected, StateChange
from services.prefect_api.run_calls import Stopped

log = structlog.get_logger()

OVERDUE: Final = timedelta(seconds=10)
"""After this time a queued run that nobody claimed is checked: its job may have been lost."""


class Prefect(Protocol):
    """The calls to Prefect that the intake makes."""

    async def without_work_pool(self) -> list[Deployment]:
        """Return every deployment that names no work pool."""

    async def read(self, deployment_id: str) -> Deployment:
        """One deployment."""

    async def due(self, deployment_ids: Sequence[str], *, before: datetime) -> list[DueRun]:
        """Return the scheduled runs that are to start before that time."""

    async def stopped(self, run_ids: Sequence[str]) -> list[Stopped]:
        """Return those of the runs that are in a state without a process, or are to be stopped."""

    def changes(self) -> AsyncIterator[StateChange | Connected]:
        """Yield state changes as Prefect publishes them."""


class Enqueue(Protocol):
    """Puts a run on a queue."""

    async def __call__(self, queue_name: str, run_id: str, state_id: str, *, again: bool = False) -> bool:
        """Return whether the run was queued; ``again`` also queues one whose former job has ended or was lost."""


class RunIntake:
    """Feeds the queue of one executor, and reports runs that are to be cancelled or were suspended."""

    def __init__(
        self,
        *,
        prefect: Prefect,
        enqueue: Enqueue,
        policy: RunPolicy,
        running: Callable[[], Sequence[str]],
        tell: Callable[[Stopped], None],
        changed: Callable[[Sequence[Deployment]], None],
        settings: ExecutorSettings,
    ) -> None:
        self._prefect = prefect
        self._enqueue = enqueue
        self._policy = policy
        self._running = running
        self._tell = tell
        self._changed = changed
        self._settings = settings
        self._deployments: dict[str, Deployment] = {}
        self._foreign: set[str] = set()
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._poll_now = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._problem: str | None = None
        self._polled = False
        self.connected = False

    async def run(self) -> None:
        """Listen and poll until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._poll_for_ever())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    @property
    def deployment_ids(self) -> list[str]:
        """Return the ids of the deployments whose runs are executed here."""
        return sorted(self._deployments)

    def status(self) -> Mapping[str, Any]:
        """Connection, deployments and runs that are not due yet."""
        return {
            "listening": self.connected,
            "deployments": sorted(deployment.name for deployment in self._deployments.values()),
            "waiting_for_their_time": len(self._timers),
            **({"degraded": self._problem} if self._problem else {}),
        }

    def not_before(self, run_id: str, state_id: str, queue: str, moment: datetime) -> None:
        """Queue the run at ``moment``, also if it was queued too early before."""
        self._at(DueRun(run_id, state_id, "", moment), queue, again=True)

    async def _listen(self) -> None:
        async for change in self._prefect.changes():
            if isinstance(change, Connected):
                self.connected = True
                self._poll_now.set()
            else:
                if change.state_type == "SCHEDULED" and change.deployment_id is not None:
                    self._spawn(self._take(change))
                self._pass_on_heard(change)

    def _pass_on_heard(self, change: StateChange) -> None:
        self._tell(Stopped(change.run_id, change.state_id, change.occurred, change.state_type, change.state_name))

    async def _take(self, change: StateChange) -> None:
        deployment = await self._known(change.deployment_id or "")
        if deployment is not None:
            with contextlib.suppress(TransientError, Backpressure):  # the poll finds it
                await self._enqueue(self._policy.queue(deployment), change.run_id, change.state_id)

    async def _known(self, deployment_id: str) -> Deployment | None:
        if deployment_id not in self._deployments and deployment_id not in self._foreign:
            # Read once for all runs of a deployment: hundreds of requests at a time overload Prefect's client.
            asked = self._asked.get(deployment_id)
            if asked is None:
                asked = self._asked[deployment_id] = asyncio.create_task(self._look_up(deployment_id))
                asked.add_done_callback(lambda _: self._asked.pop(deployment_id, None))
            await asyncio.wait({asked})
        return self._deployments.get(deployment_id)

    async def _look_up(self, deployment_id: str) -> None:
        with contextlib.suppress(TransientError, NotFound):  # the poll finds its runs
            self._file(await self._prefect.read(deployment_id))
            self._changed(list(self._deployments.values()))

    def _file(self, deployment: Deployment) -> None:
        refusal = self._policy.refusal(deployment)
        if refusal is None:
            self._deployments[deployment.id] = deployment
        else:
            if deployment.id not in self._foreign:
                log.info("deployment left alone", deployment=deployment.name, reason=refusal)
            self._foreign.add(deployment.id)

    async def _poll_for_ever(self) -> None:
        while True:
            self._poll_now.clear()
            try:
                await self._poll()
            except SluiceError as error:
                if self._problem is None:
                    log.warning("prefect or redis is out of reach, trying again", error=str(error))
                self._problem = str(error)
            else:
                if self._problem is not None:
                    log.info("prefect and redis can be reached again")
                self._problem = None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poll_now.wait(), self._settings.poll_seconds)

    async def _poll(self) -> None:
        found = await self._prefect.without_work_pool()
        before, self._deployments = self._deployments, {}
        for deployment in found:
            self._file(deployment)
        self._foreign -= self._deployments.keys()
        if self._deployments != before or not self._polled:
            self._polled = True
            self._changed(list(self._deployments.values()))
        now = datetime.now(UTC)
        horizon = now + timedelta(seconds=self._settings.poll_seconds * 2)
        for run in await self._prefect.due(sorted(self._deployments), before=horizon):
            queue = self._policy.queue(self._deployments[run.deployment_id])
            if run.scheduled > now:
                self._at(run, queue)
            else:
                await self._enqueue(queue, run.run_id, run.state_id, again=now - run.scheduled > OVERDUE)
        running = self._running()
        for stopped in await self._prefect.stopped(running) if running else ():
            self._tell(stopped)

    def _at(self, run: DueRun, queue: str, *, again: bool = False) -> None:
        if run.state_id in self._timers:
            return
        delay = max((run.scheduled - datetime.now(UTC)).total_seconds(), 0)

        def due() -> None:
            self._timers.pop(run.state_id, None)
            self._spawn(self._put(queue, run, again=again))

        self._timers[run.state_id] = asyncio.get_running_loop().call_later(delay, due)

    async def _put(self, queue: str, run: DueRun, *, again: bool) -> None:
        with contextlib.suppress(TransientError, Backpressure):  # the poll finds it
            await self._enqueue(queue, run.run_id, run.state_id, again=again)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
