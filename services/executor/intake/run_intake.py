"""The intake: receives scheduled runs and puts each on the runs queue when it is due, each state once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from typing_extensions import override

from config.runs import ExecutorSettings
from events.errors import Backpressure, NotFound, SluiceError, TransientError
from services.common.backoff import ended
from services.common.prefect_probe import prefect_answers
from services.executor.intake.run_policy import Priority, RunPolicy, queue_name
from services.executor.job_enqueuer import JobEnqueuer
from services.executor.pool.fork_server_handle import registered_here, sources_of
from services.executor.pool.process_pool import ProcessPool
from services.prefect_api import deployments, run_calls
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import Deployment, DueRun
from services.prefect_api.events import StateFeed
from services.prefect_api.runs import FINAL_TYPES, StateChange
from services.store.runs.registered_files import RegisteredFiles

log = structlog.get_logger()

OVERDUE: Final = timedelta(seconds=10)
"""After this time a queued run that nobody claimed is checked: its job may have been lost."""
START_SECONDS: Final = 10.0
"""How long Prefect's server may take to answer after the executor has started before that is reported."""
LIST_SECONDS: Final = 15.0
"""How often all deployments are listed where nothing says that they have changed: that takes Prefect's server longer
than all else that an idle installation asks of it."""


class RunIntake(StateFeed):
    """Feeds the queues of one executor, and tells its process pool the states of its runs and the flows it executes."""

    def __init__(
        self,
        *,
        prefect: PrefectApi,
        enqueuer: JobEnqueuer,
        registered: RegisteredFiles,
        pool: ProcessPool,
        settings: ExecutorSettings,
    ) -> None:
        super().__init__(
            doing="look for scheduled runs",
            poll_seconds=settings.poll_seconds,
            state_types=FINAL_TYPES | {"SCHEDULED", "CANCELLING", "PAUSED"},
        )
        self._prefect = prefect
        self._enqueuer = enqueuer
        self._registered = registered
        self._policy = RunPolicy(executor=settings.name, globs=settings.deployments, registered=registered.get)
        self._pool = pool
        self._horizon = timedelta(seconds=settings.poll_seconds * 2)
        self._name = settings.name
        self._deployments: dict[str, Deployment] = {}
        """The deployments whose runs are executed here, by id."""
        self._foreign: set[str] = set()
        self._list_at = 0.0
        self._listed = False
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Listen and poll until cancelled.

        Prefect's server may start at the same time: until it answers, at most for `START_SECONDS`, there is only what
        `sluice deploy` has registered before.
        """
        await self._refresh()
        if here := registered_here(self._registered.files):
            self._pool.set_sources(here)
        with contextlib.suppress(TransientError):  # the poll says why
            await prefect_answers(self._prefect.url, within_seconds=START_SECONDS)
        try:
            await self.follow()
        finally:
            for timer in self._timers.values():
                timer.cancel()
            await ended(*self._tasks, *self._asked.values())

    @property
    def deployment_ids(self) -> list[str]:
        """The ids of the deployments whose runs are executed here."""
        return sorted(self._deployments)

    def status(self) -> Mapping[str, Any]:
        """Connection, deployments and runs that are not due yet."""
        return {
            "listening": self.connected,
            "deployments": sorted(deployment.name for deployment in self._deployments.values()),
            "waiting_for_their_time": len(self._timers),
            **({"degraded": self.trouble} if self.trouble else {}),
        }

    def not_before(self, run_id: str, state_id: str, moment: datetime) -> None:
        """Queue the run at ``moment``, also if it was queued too early before."""
        self._at(DueRun(run_id, state_id, "", moment), queue_name(self._name, Priority.NORMAL), again=True)

    @override
    async def changed(self, change: StateChange) -> None:
        if change.state_type == "SCHEDULED" and change.deployment_id is not None and change.state_id is not None:
            self._spawn(self._take(change.deployment_id, change.run_id, change.state_id))
        self._pool.tell(change)

    async def _take(self, deployment_id: str, run_id: str, state_id: str) -> None:
        deployment = await self._known(deployment_id)
        if deployment is None:
            self._list_at = 0.0  # it may have become one of ours
        else:
            await self._put(self._policy.queue(deployment), run_id, state_id)

    async def _known(self, deployment_id: str) -> Deployment | None:
        """Return the deployment if it is one without a work pool; it is looked up in Prefect if it is new."""
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
            await self._refresh()
            self._file(await deployments.read(self._prefect, deployment_id))
            self._pool.set_sources(sources_of(self._deployments.values()))

    async def _refresh(self) -> None:
        """Read again what `sluice deploy` has registered; what was read last counts where Redis is away."""
        with contextlib.suppress(SluiceError):
            if await self._enqueuer.call(self._registered.refresh):
                self._list_at = 0.0

    def _file(self, deployment: Deployment) -> None:
        refusal = self._policy.refusal(deployment)
        if refusal is None:
            self._deployments[deployment.id] = deployment
        else:
            if deployment.id not in self._foreign:
                log.info("deployment left alone", deployment=deployment.name, reason=refusal)
            self._foreign.add(deployment.id)

    @override
    async def poll(self, *, gap: bool) -> None:
        """Read the deployments and the due runs from Prefect: the safety net for events that the websocket missed.

        ``gap`` says that events may have been missed, so that deployments are listed at once. Running runs are checked
        for states that end them.
        """
        await self._refresh()
        if gap or time.monotonic() >= self._list_at:
            await self._list()
        now = datetime.now(UTC)
        for run in await deployments.due(self._prefect, self.deployment_ids, before=now + self._horizon):
            queue = self._policy.queue(self._deployments[run.deployment_id])
            if run.scheduled > now:
                self._at(run, queue)
            else:
                await self._enqueuer.put(queue, run.run_id, run.state_id, again=now - run.scheduled > OVERDUE)
        running = list(self._pool.slots.running)
        for state in await run_calls.stopped(self._prefect, running) if running else ():
            self._pool.tell(state)

    async def _list(self) -> None:
        """List the deployments without a work pool, and tell the process pool if those of this executor changed."""
        self._list_at = time.monotonic() + LIST_SECONDS
        try:
            found = await deployments.without_work_pool(self._prefect)
        except BaseException:
            self._list_at = 0.0
            raise
        before, self._deployments = self._deployments, {}
        for deployment in found:
            self._file(deployment)
        self._foreign -= self._deployments.keys()
        if self._deployments != before or not self._listed:
            self._listed = True
            self._pool.set_sources(sources_of(self._deployments.values()))

    def _at(self, run: DueRun, queue: str, *, again: bool = False) -> None:
        """Put the run on its queue at its scheduled time; once for each of its states."""
        if run.state_id in self._timers:
            return
        delay = max((run.scheduled - datetime.now(UTC)).total_seconds(), 0)

        def due() -> None:
            self._timers.pop(run.state_id, None)
            self._spawn(self._put(queue, run.run_id, run.state_id, again=again))

        self._timers[run.state_id] = asyncio.get_running_loop().call_later(delay, due)

    async def _put(self, queue: str, run_id: str, state_id: str, *, again: bool = False) -> None:
        with contextlib.suppress(TransientError, Backpressure):  # the poll finds it
            await self._enqueuer.put(queue, run_id, state_id, again=again)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
