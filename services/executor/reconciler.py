"""The reconciler: finds the runs that have no process any more, by comparing register, process pool and Prefect.

| register of executions | process pool here | Prefect | for | then |
| --- | --- | --- | --- | --- |
| this instance has the run | does not have it | | 5 s | finalize it |
| another instance has it, which gives no sign of life | | | half of ``lost_seconds`` | take it over, finalize it |
| another instance has it, which is that of a restored backup | | | at once | take it over, finalize it |
| nobody has it | has it | | 5 s | write the record again, Redis has lost it |
| nobody has it | does not have it | needs a process; Sluice claimed it | ``lost_seconds`` | take it, finalize it |
| nobody has it | does not have it | needs a process; Sluice did not claim it | ``lost_seconds`` | report it |

Everything else is as it should be. The times allow for what is under way: a run that begins or ends is for a moment in
one place and not in the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from events.errors import SluiceError
from services.common.backoff import ended
from services.common.lasting import Lasting
from services.executor.intake.run_intake import RunIntake
from services.executor.job_enqueuer import JobEnqueuer
from services.executor.messages import CutOff, FinalizeRun, RunBegan
from services.executor.pool.process_pool import ProcessPool
from services.executor.process_exits import FINALIZER_SECONDS, EndReason, RunEnd
from services.prefect_api import run_calls
from services.prefect_api.client import PrefectApi
from services.prefect_api.dispatch import healthy
from services.store.runs.executions import RESTORED, Execution, Executions

OWN_SECONDS: Final = 5.0
"""How long this instance's register and process pool may differ."""
LEAVE_SECONDS: Final = 2.0
SLOT_DIED: Final = "The slot that ran the run died, and the run with it."
PROCESS_DIED: Final = "The process that was to see the run through died, and the run with it."
UNRECORDED: Final = (
    "No process executes the run any more, and no executor knows of it: its machine, or the record of it, was lost."
)

log = structlog.get_logger()


@dataclass(kw_only=True, eq=False)
class Reconciler:
    """Has lost runs finalized, each by one executor; a run that could not be finalized is tried again.

    ``enqueuer`` is where blocking calls to Redis are made.
    """

    instance: str
    executions: Executions
    enqueuer: JobEnqueuer
    pool: ProcessPool
    intake: RunIntake
    prefect: PrefectApi
    lost_seconds: float

    def __post_init__(self) -> None:
        self._without_slot = Lasting[Execution](seconds=OWN_SECONDS)
        self._without_record = Lasting[str](seconds=OWN_SECONDS)
        # An executor's silence counts from when this process first saw it: after Redis was away, all look silent.
        self._silent = Lasting[str](seconds=self.lost_seconds / 2)
        self._unrecorded = Lasting[str](seconds=self.lost_seconds)
        self._cut_off = False
        self._lived_at = self._asked_prefect_at = time.monotonic()
        self.without_process: list[str] = []
        """The runs that need a process by their state in Prefect, and have none that an executor began."""
        self._finalizing: dict[str, tuple[Execution, float]] = {}
        """The runs that a fork server was sent to finalize, and when."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def unsettled(self) -> int:
        """Number of runs that are being finalized."""
        return len(self._finalizing)

    async def run(self) -> None:
        """Compare until cancelled, and give this instance's sign of life; `leave` must follow.

        Nothing that waits for Prefect keeps the sign of life waiting: others would take this instance's runs over.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._live))
            tasks.create_task(self._repeat(self._end_what_others_start))
            tasks.create_task(self._repeat(self._compare_register))
            tasks.create_task(self._repeat(self._compare_prefect))

    async def _repeat(self, work: Callable[[], Awaitable[object]]) -> None:
        while True:
            with contextlib.suppress(SluiceError):
                await work()
            await asyncio.sleep(self.lost_seconds / 4)

    async def leave(self) -> None:
        """End this instance's sign of life, once its slots have ended."""
        await ended(*self._tasks)
        with contextlib.suppress(SluiceError, TimeoutError):
            await asyncio.wait_for(self.enqueuer.call(self.executions.leave, self.instance), LEAVE_SECONDS)

    def orphaned(self, run: RunBegan) -> None:
        """Finalize a run whose slot has ended."""
        execution = Execution(run_id=run.run_id, instance=self.instance, since=run.at)
        self._finalize(execution, SLOT_DIED)

    def finalized(self, run_id: str, *, ok: bool) -> None:
        """Delete the record of a finalized run; where it could not be finalized, the next comparison finds it again."""
        execution, _ = self._finalizing.pop(run_id, (None, 0.0))
        if execution is not None and ok:
            task = asyncio.create_task(self._end(execution))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _end(self, execution: Execution) -> None:
        with contextlib.suppress(SluiceError):  # the next comparison finds the record again, and the run finalized
            await self.enqueuer.call(self.executions.end, execution)

    async def _live(self) -> None:
        asked = time.monotonic()
        await self.enqueuer.call(self.executions.live, self.instance)
        self._lived_at = asked

    async def _end_what_others_start(self) -> None:
        """End the runs that start again elsewhere when they are lost, if this instance is cut off; before they do.

        Where only Redis is out of reach, the states that others set are heard of, and runs go on.
        """
        quarter = self.lost_seconds / 4
        if time.monotonic() - self._lived_at < 2 * quarter or await healthy(self.prefect, within_seconds=quarter):
            self._cut_off = False
            return
        if not self._cut_off:
            log.warning("neither redis nor prefect is reached, runs that start again when they are lost are ended")
        self._cut_off = True
        self.pool.slots.tell_all(CutOff(quarter))

    async def _compare_register(self) -> None:
        """Compare the register with the process pool, and with the instances that are alive.

        A difference counts only when it has lasted for a time, because a run may just be starting or ending. Own runs
        without a slot are finalized; runs of executors that are silent, or restored from a backup, are taken over.
        """
        running = {run_id: slot.run for run_id, slot in self.pool.slots.running.items() if slot.run is not None}
        register = await self.enqueuer.call(self.executions.all)
        for run_id in self._without_record.look(running.keys() - {execution.run_id for execution in register}):
            execution = Execution(run_id=run_id, instance=self.instance, since=running[run_id].at)
            await self.enqueuer.call(self.executions.begin, execution)
        own = [one for one in register if one.instance == self.instance and one.run_id not in running]
        for execution in self._without_slot.look(own):
            self._finalize(execution, PROCESS_DIED)
        others = {execution.instance for execution in register} - {self.instance}
        silent = self._silent.look(
            [name for name in others if not await self.enqueuer.call(self.executions.lives, name)]
        )
        for execution in register:
            if execution.instance in silent or (execution.ending == RESTORED and execution.instance in others):
                await self._take_over(execution)

    async def _take_over(self, execution: Execution) -> None:
        """Become the executor of a lost run, if no other executor was faster, and have it finalized."""
        taken = await self.enqueuer.call(self.executions.take_over, execution, self.instance)
        if taken is not None:
            log.warning("taking over a run of a dead executor", run=taken.run_id, executor=execution.instance)
            message = (
                f"The executor {execution.instance} that ran the run has not been heard of for "
                f"{self.lost_seconds:g} s: its process or its machine died, and the run with it."
            )
            self._finalize(taken, message, perhaps_alive=execution.ending != RESTORED)

    async def _compare_prefect(self) -> None:
        """Compare Prefect's running runs with the register: those that nobody has are lost, and finalized.

        A run that no executor claimed, as one that was set to Running by hand, is only reported.
        """
        if time.monotonic() - self._asked_prefect_at < self.lost_seconds:
            return
        self._asked_prefect_at = time.monotonic()
        need_process = await run_calls.in_process(self.prefect, self.intake.deployment_ids)
        # Read after the runs: a run that was begun in between is in the register.
        known = {*self.pool.slots.running, *await self.enqueuer.call(self.executions.held_by_anyone)}
        unclaimed = []
        for run_id in self._unrecorded.look(run_id for run_id in need_process if run_id not in known):
            if not await run_calls.was_claimed(self.prefect, run_id):
                unclaimed.append(run_id)
                continue
            execution = Execution(run_id, self.instance, time.time(), ending=EndReason.LOST, message=UNRECORDED)
            if await self.enqueuer.call(self.executions.begin, execution) is None:
                log.warning("finalizing a lost run", run=run_id)
                self._finalize(execution, UNRECORDED, perhaps_alive=True)
        ended = await run_calls.end_cancelling(self.prefect, unclaimed) if unclaimed else []
        self.without_process = [run_id for run_id in unclaimed if run_id not in ended]

    def _finalize(self, execution: Execution, message: str, *, perhaps_alive: bool = False) -> None:
        """Have the run finalized; where that is not possible now, the next comparison finds it again.

        ``perhaps_alive``: its process may still run, on an executor that reaches Prefect but not Redis. That one hears
        the run's new state from Prefect, and ends the process; a run that starts again waits for this.
        """
        run_id = execution.run_id
        end = RunEnd(EndReason(execution.ending or EndReason.LOST), execution.message or message)
        _, asked = self._finalizing.get(run_id, (None, -FINALIZER_SECONDS))
        if time.monotonic() - asked >= FINALIZER_SECONDS and self.pool.finalize(
            FinalizeRun(run_id, end, after_seconds=self.lost_seconds if perhaps_alive else 0.0)
        ):
            self._finalizing[run_id] = (execution, time.monotonic())
