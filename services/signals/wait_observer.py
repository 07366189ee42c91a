"""Observes waits: applies the signals that are buffered for a run when it begins to wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import structlog
from typing_extensions import override

from config.settings import ResumerSettings
from events.errors import Backpressure, NotFound, Refused, TransientError
from services.common.backoff import Backoff, ended
from services.prefect_api.events import StateFeed
from services.prefect_api.run_view import RunView
from services.prefect_api.runs import COMMIT_PAUSES, StateChange
from services.prefect_api.waiting import WaitingRuns
from services.signals.late import LateSignals
from services.signals.resume_observer import ResumeObserver
from services.store.signals.signals import SignalStore
from services.store.signals.waits import Waits
from sluice.protocol import entry_of

_UNSEEN_SECONDS: Final = 60.0
"""How long a run is read again that Prefect has published as waiting and does not show so yet: a bulk call commits
seconds later."""

_TOGETHER_SECONDS: Final = 0.1
"""While no signal is open, runs that begin to wait are read together after this time."""

_SWEEP_SECONDS: Final = 0.5
_AT_ONCE: Final = 8
_BATCH: Final = 50
_AGAIN_SECONDS: Final = 2.0
_TRIES: Final = 5

log = structlog.get_logger()


class WaitObserver(StateFeed):
    """Receives the begins and ends of waits, and handles signals for which no job remains.

    ``apply`` applies one signal as far as possible, ``serve`` delivers one run's open signals. Several observers may
    run: they work under leases.
    """

    def __init__(
        self,
        *,
        store: SignalStore,
        waits: Waits,
        runs: WaitingRuns,
        apply: Callable[[str], Awaitable[None]],
        serve: Callable[[str], Awaitable[object]],
        resume_observer: ResumeObserver,
        settings: ResumerSettings,
    ) -> None:
        super().__init__(doing="read every waiting run", poll_seconds=settings.scan_seconds)
        self._store = store
        self._waits = waits
        self._runs = runs
        self._apply = apply
        self._serve_late = serve
        self._resume_observer = resume_observer
        self._late = LateSignals(store=store, runs=runs)
        self._settings = settings
        self._paused: dict[str, str] = {}
        self._unseen: dict[str, float] = {}
        self._heard = asyncio.Event()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._bystanding = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts = (0, 0, 0)
        self._backoffs: list[Backoff] = []

    def status(self) -> Mapping[str, Any]:
        """Ready once connected to Prefect; the numbers of open and buffered signals and of waiting runs."""
        opened, buffered, waiting = self._counts
        status: dict[str, Any] = {"ready": self.connected, "open": opened, "buffered": buffered, "waiting": waiting}
        if trouble := next((one.trouble for one in self._backoffs if one.trouble), self.trouble):
            status["degraded"] = trouble
        return status

    async def run(self) -> None:
        """Observe until cancelled; retries while Redis or Prefect is away."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.follow())
                tasks.create_task(self._patiently(self._see_to_paused))
                tasks.create_task(self._patiently(self._see_to_unseen, every=_AGAIN_SECONDS))
                tasks.create_task(self._patiently(self._sweep, every=_SWEEP_SECONDS))
                tasks.create_task(self._patiently(self._look_at_buffered, every=self._settings.poll_seconds))
        finally:
            await ended(*self._tasks)

    async def _patiently(self, work: Callable[[], Awaitable[None]], *, every: float = 0) -> None:
        backoff = Backoff("observe waits", first_seconds=_SWEEP_SECONDS, longest_seconds=self._settings.poll_seconds)
        self._backoffs.append(backoff)
        while True:
            try:
                await work()
            except (TransientError, Backpressure, Refused) as error:
                await backoff.after(error)
            else:
                backoff.worked()
                await asyncio.sleep(every)

    @override
    async def changed(self, change: StateChange) -> None:
        if change.state_type == "PAUSED" and change.state_id is not None:
            self._paused[change.run_id] = change.state_id
            self._heard.set()
        else:
            unseen = self._paused.pop(change.run_id, None) or self._unseen.pop(change.run_id, None)
            self._aside(partial(self._resume_observer.left, change, unseen=unseen is not None))

    def _aside(self, work: Callable[[], Awaitable[object]]) -> None:
        task = asyncio.create_task(self._tried_again(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tried_again(self, work: Callable[[], Awaitable[object]]) -> None:
        for number in range(_TRIES):
            try:
                async with self._bystanding:
                    await work()
            except NotFound:
                return
            except (TransientError, Backpressure, Refused) as error:
                log.debug("a waiting run is tried again later", error=str(error))
                await asyncio.sleep(_AGAIN_SECONDS * 2**number)
            else:
                return

    async def _see_to_paused(self) -> None:
        await self._heard.wait()
        self._heard.clear()
        try:
            await self._look_at_paused()
        except BaseException:
            self._heard.set()  # these runs are still to be handled
            raise

    async def _look_at_paused(self) -> None:
        """Read the runs whose pause was published, until they show as waiting, and apply the signals for them.

        Those that still do not are read again for a minute.
        """
        if not (await self._store.counts())[0]:
            await asyncio.sleep(_TOGETHER_SECONDS)
        wanted: dict[str, str] = {}
        for pause in (0.0, *COMMIT_PAUSES):
            await asyncio.sleep(pause)
            wanted = dict(self._paused)
            if not wanted:
                return
            ids = list(wanted)
            for start in range(0, len(ids), _BATCH):
                found = [run for run in await self._runs.read_many(ids[start : start + _BATCH]) if run.waiting]
                in_hand = {run.run_id: self._paused.pop(run.run_id, "") for run in found}
                try:
                    await self._see_to(found)
                except BaseException:
                    self._paused = {**in_hand, **self._paused}
                    raise
        for run_id in wanted:
            if self._paused.pop(run_id, None) is not None:
                self._unseen.setdefault(run_id, time.monotonic() + _UNSEEN_SECONDS)

    async def _see_to_unseen(self) -> None:
        """Give up on runs that do not wait: they have continued, or a later poll finds them."""
        now = time.monotonic()
        self._unseen = {run_id: until for run_id, until in self._unseen.items() if until > now}
        ids = list(self._unseen)
        for start in range(0, len(ids), _BATCH):
            found = [run for run in await self._runs.read_many(ids[start : start + _BATCH]) if run.waiting]
            await self._see_to(found)
            for run in found:
                self._unseen.pop(run.run_id, None)

    async def _see_to(self, runs: Sequence[RunView]) -> None:
        """Record that the runs wait, and apply their open signals."""
        if not runs:
            return
        fresh = await self._waits.fresh(runs)
        for run in runs:
            if run.run_id in fresh and run.handed_over:
                await self._resume_observer.handed_over(run)
        await self._waits.began(runs)
        await self._store.waits_began(_begun(runs, fresh))
        for run in runs:
            if run.run_id in fresh and run.ours:
                if run.suspended:  # no process is left that would do it
                    self._aside(partial(self._runs.show_form, run))
                before = fresh[run.run_id]
                if entry_of(run.wait_id) > 1 if before is None else before != run.wait_id:
                    self._aside(partial(self._resume_observer.waits_again, run))
        targets = {run.run_id: _targets(run) for run in runs}
        wanted = await self._store.with_signals([target for found in targets.values() for target in found])
        async with asyncio.TaskGroup() as tasks:
            for run in runs:
                if wanted.intersection(targets[run.run_id]):
                    tasks.create_task(self._serve(run))

    async def _serve(self, run: RunView) -> None:
        async with self._slots:
            with contextlib.suppress(TransientError, Backpressure):  # the signals stay open, and the sweep finds them
                for record in await self._store.open_for(_targets(run)):
                    await self._apply(record.signal.id)
                # Late signals have an outcome: the sweep, which reads open signals, would not find them.
                if await self._store.late_for(run.keys, run.run_id, run.open_since):
                    self._aside(partial(self._serve_late, run.run_id))

    async def _sweep(self) -> None:
        """Handle signals that are due: lost jobs, later attempts, ends of their time to live; and alarms of waits."""
        for signal_id in await self._store.due():
            await self._apply(signal_id)
        await self._resume_observer.alarms(datetime.now(UTC))

    async def _look_at_buffered(self) -> None:
        """Compare the buffered signals with the runs that wait, in case an event was not received."""
        async for records in self._store.buffered():
            run_ids = {str(record.signal.run_id): record for record in records if record.signal.run_id}
            keys = sorted({record.signal.key for record in records if record.signal.key})
            waiting = [run for run in await self._runs.read_many(list(run_ids)) if run.waiting or run.final]
            if keys:
                waiting += await self._runs.waiting_for(keys)
            await self._see_to([run for run in waiting if run.waiting])
            for run in waiting:
                if run.final:
                    await self._apply(run_ids[run.run_id].signal.id)
            for record in await self._late.of(records):
                await self._apply(record.signal.id)
        await self._store.forget()
        self._counts = (*await self._store.counts(), await self._waits.count())

    @override
    async def poll(self, *, gap: bool) -> None:
        """Read every waiting run, for waits that began or ended while no observer was connected."""
        if gap and not self.connected:
            return  # the connection is about to be made, and a scan follows it
        waiting: dict[str, str] = {}
        asked = time.monotonic()
        async for page in self._runs.paused():
            waiting |= {run.run_id: run.wait_id for run in page}
            await self._see_to(page)
            await self._tried_again(partial(self._resume_observer.still_waiting, page))
            # Prefect handles one call at a time: a scan takes at most a quarter of the time.
            await asyncio.sleep(3 * (time.monotonic() - asked))
            asked = time.monotonic()
        async for run_id, wait in self._waits.known():
            if waiting.get(run_id) != wait:
                await self._tried_again(partial(self._resume_observer.left_unheard, run_id, wait))
        tagged = [run_id async for run_id in self._waits.all_tagged() if run_id not in waiting]
        await self._tried_again(partial(self._resume_observer.untag_ended, tagged))


def _begun(runs: Sequence[RunView], fresh: Collection[str]) -> list[tuple[str, str, datetime]]:
    return [(run.run_id, key, run.entered) for run in runs if run.run_id in fresh for key in run.keys]


def _targets(run: RunView) -> list[str]:
    return [f"run {run.run_id}", *(f"key {key}" for key in run.keys)]
