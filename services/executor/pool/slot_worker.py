"""A slot: the RQ worker that takes one run at a time, starts its run process, and has it finalized.

A slot has one thread, one connection to Redis and one to the role's process; it never imports a flow.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from redis.exceptions import RedisError
from rq import Worker
from rq.exceptions import StopRequested
from rq.executions import Execution as JobExecution
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.worker import WorkerStatus
from typing_extensions import override

from events.errors import Backpressure, TransientError
from services.common.process_tree import Strays, reap_children, show_as
from services.executor.messages import (
    Assignment,
    ExecuteRun,
    FinalizeRun,
    FlowStarted,
    HandBack,
    NotClaimed,
    OptionsRead,
    ProcessMessage,
    Queued,
    RunBegan,
    RunClaimed,
    SlotIdle,
    SlotReady,
    Stop,
)
from services.executor.pipes import Link
from services.executor.pool.role_absence import RoleAbsence
from services.executor.pool.run_process import spawn
from services.executor.pool.run_watch import HANDED_BACK, UNREACHED, RunOutcome, RunWatch
from services.executor.pool.starters import Start, fork_to_carry_out
from services.executor.process_exits import FINALIZER_SECONDS, RunEnd
from services.job_queues.workers import Gated
from services.prefect_api.server_options import ServerOptions
from services.store.connection import SyncRedis
from services.store.runs.executions import Execution, Executions
from services.store.unreadable import FAULTS

if TYPE_CHECKING:
    from services.executor.process.flow_run_process import Prepared

log = structlog.get_logger()

WAIT_SECONDS: Final = 1.0
"""How often the slot checks limits and connections during a run; events wake it at once."""
FINALIZER_TRIES: Final = 3


class SlotWorker(Gated, Worker):
    """One slot; ``work`` returns when it is stopped, when the role's process has ended, or when Redis fails.

    ``prepared`` is what forks of the slot inherit; without it, each run is a fresh interpreter.
    """

    def __init__(
        self,
        number: int,
        assignment: Assignment,
        *,
        redis: SyncRedis,
        link: Link,
        executions: Executions,
        prepared: Prepared | None,
    ) -> None:
        name = f"{assignment.instance}-{number}-{os.getpid()}"
        super().__init__(assignment.queues, redis, name, worker_ttl=60, job_monitoring_interval=15)
        self._number = number
        self._assignment = assignment
        self._link = link
        self._records = executions
        given: dict[str, Any] = {"environment": assignment.environment, "shelf": assignment.shelf}
        self._start: Start = partial(spawn, **given)
        if prepared is not None:
            self._start = partial(fork_to_carry_out, **given, prepared=prepared, forget=self._forget)
        self._options: ServerOptions | None = None
        self._wake_read, self._wake_write = os.pipe()
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)

    @override
    def subscribe(self) -> None:
        """Subscribe without RQ's thread, which a slot must not have: commands are read between other steps."""
        self.pubsub = self.connection.pubsub()  # type: ignore[no-untyped-call]
        self.pubsub.subscribe(**{self.pubsub_channel_name: self.handle_payload})

    @override
    def unsubscribe(self) -> None:
        if self.pubsub is not None:
            self.pubsub.close()

    @override
    def _install_signal_handlers(self) -> None:
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._stop())
        signal.signal(signal.SIGINT, lambda _number, _frame: self._stop())  # RQ's shutdown command, or Ctrl-C
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    @override
    def bootstrap(self, *args: Any, **options: Any) -> None:
        super().bootstrap(*args, **options)
        show_as(f"slot {self._number}")
        client = self.connection.client_id()
        self._link.send(SlotReady(self._number, self._assignment.generation, os.getpid(), client))

    @override
    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Send RQ's heartbeat; between jobs, also read the messages of the role's process."""
        if pipeline is None and self.get_state() == WorkerStatus.IDLE:
            self._look_around()
            for _ in reap_children():
                pass
            if self._stop_requested:
                raise StopRequested
        super().heartbeat(timeout, pipeline)

    def _stop(self) -> None:
        self._stop_requested = True

    def _look_around(self) -> None:
        """Do what is due between runs."""
        for message in self._link.receive():
            self._hear(message)
        if not self._link.alive:
            self._stop()
        self._hear_commands()

    def _hear(self, message: ProcessMessage) -> None:
        if isinstance(message, Stop | HandBack):
            self._stop()
        elif isinstance(message, OptionsRead):
            self._options = message.options

    def _hear_commands(self) -> None:
        if self.pubsub is not None:
            with contextlib.suppress(RedisError):
                while self.pubsub.get_message(ignore_subscribe_messages=True, timeout=0):
                    pass

    @override
    def execute_job(self, job: Job, queue: Queue) -> None:
        """Execute the job's run and update RQ's registries; if an update fails, the run goes on."""
        record = Execution(run_id=str(job.args[0]), instance=self._assignment.instance, since=time.time())
        show_as(f"slot {self._number}: run {record.run_id[:8]}")
        free = self._hold(record)
        strays = Strays()
        told = self._link.receive()  # messages may have waited as long as the slot has for this job
        for message in told:
            self._hear(message)
        watch = self._start_run(job, record, free=free)
        absence = RoleAbsence(
            watch,
            link=self._link,
            start=self._start,
            executions=self._records,
            record=record if free else None,
            slot=f"{self._assignment.instance}/{self._number}",
            lost_seconds=self._assignment.lost_seconds,
        )
        execution = self._begin_job(job)
        try:
            for message in told:
                self._obey(message, watch, absence)
            self._follow(watch, absence, job, execution)
        finally:
            self._horse_pid = 0
            watch.process.close()
        outcome = watch.outcome()
        if watch.end is not None:
            killed = strays.kill()
            if killed:
                log.info("killed what the run left behind", run=record.run_id, processes=killed)
        if free:
            self._see_finalized(watch.end, absence.record or record)
        self._end_job(job, queue, execution, outcome, _moments(watch, record))
        show_as(f"slot {self._number}")
        early = watch.process.last(NotClaimed)
        self._link.send(SlotIdle(record.run_id, job.id, early.until if early is not None else None))

    def _hold(self, record: Execution) -> bool:
        """Register the run for this slot; false where another slot has it, or might: then it must not be claimed."""
        holder: list[Execution | None] = []
        return self._register(lambda: holder.append(self._records.begin(record))) and holder == [None]

    def _start_run(self, job: Job, record: Execution, *, free: bool) -> RunWatch:
        """Start the process of a run; return what watches it.

        Without ``free`` an earlier process of the run has not ended: the new one does not claim it then, and reports
        when it may be tried again.
        """
        queued = job.enqueued_at.timestamp() if job.enqueued_at is not None else record.since
        instruction = ExecuteRun(
            record.run_id, record.instance, queued=Queued(job.id, queued, free=free), options=self._options
        )
        run_process = self._start(instruction)
        self._horse_pid = run_process.pid  # for RQ's commands
        if free:  # else another slot has the run and receives its states
            self._link.send(RunBegan(record.run_id, run_process.pid, record.since, queued))
        return RunWatch(run_process, self._link, grace_seconds=self._assignment.grace_seconds)

    def _follow(self, watch: RunWatch, absence: RoleAbsence, job: Job, execution: JobExecution | None) -> None:
        """Return when the run process has ended."""
        heartbeat_at = time.monotonic() + self.job_monitoring_interval
        while not watch.process.reap():
            self._wait(watch)
            watch.step()
            for message in self._link.receive():
                self._hear(message)
                self._obey(message, watch, absence)
            self._hear_commands()
            absence.step()
            if execution is not None and time.monotonic() >= heartbeat_at:
                heartbeat_at = time.monotonic() + self.job_monitoring_interval
                with contextlib.suppress(RedisError):
                    self.maintain_heartbeats(job, execution)
        watch.process.hear()

    def _obey(self, message: ProcessMessage, watch: RunWatch, absence: RoleAbsence) -> None:
        if isinstance(message, HandBack) and watch.end is None and absence.record is not None:
            # Written first: this slot may be killed before it can finalize the run.
            self._register(partial(self._records.owe, absence.record, HANDED_BACK.reason, HANDED_BACK.message))
        watch.obey(message)

    def _wait(self, watch: RunWatch) -> None:
        """Wait up to `WAIT_SECONDS` for a report of the run, a message of the role's process, or a signal."""
        reports = watch.process.reports
        watched: list[Any] = [self._wake_read]
        if not reports.ended:
            watched.append(reports.descriptor)
        if self._link.alive:
            watched.append(self._link)
        select.select(watched, [], [], WAIT_SECONDS)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _see_finalized(self, end: RunEnd | None, record: Execution) -> None:
        """Finalize the run now, or leave a debt in Redis for when Prefect can be reached."""
        if end is None:
            self._register(partial(self._records.end, record))
            return
        # Noted first, because this slot may end before the run is finalized.
        self._register(partial(self._records.owe, record, end.reason, end.message))
        if end is UNREACHED:
            return  # Prefect is out of reach; the record in Redis, if Redis comes back, keeps the debt
        if self._finalize(record.run_id, end):
            for known in (replace(record, ending=end.reason, message=end.message), record):
                self._register(partial(self._records.end, known))

    def _finalize(self, run_id: str, end: RunEnd) -> bool:
        """Finalize the run in a process that may run the flow's hooks; false if that was not possible now."""
        for attempt in range(1, FINALIZER_TRIES + 1):
            finalizer = self._start(FinalizeRun(run_id, end))
            if not finalizer.wait_for_end(within_seconds=FINALIZER_SECONDS):
                finalizer.kill()
                finalizer.reap()
                log.warning("the hooks of a run did not end in time", run=run_id, seconds=FINALIZER_SECONDS)
            finalizer.close()
            if finalizer.status == 0:
                return True
            log.warning("a run could not be finalized", run=run_id, ending=end.reason, attempt=attempt)
            time.sleep(0.5 * attempt)
        return False

    def _register(self, write: Callable[[], None]) -> bool:
        """Write to the register of executions; return whether that succeeded."""
        try:
            write()
        except (TransientError, Backpressure) as error:
            log.warning("the register of executions could not be written", error=str(error))
            return False
        return True

    def _forget(self) -> None:
        """In a forked child: close this slot's descriptors without ending its connections."""
        self._link.close()
        for descriptor in (self._wake_read, self._wake_write):
            os.close(descriptor)
        commands: Any = self.pubsub
        if commands is not None and commands.connection is not None:
            commands.connection.disconnect()  # in a fork this closes the descriptor and keeps the parent's connection
        self.connection.connection_pool.disconnect(inuse_connections=True)
        self.connection.connection_pool.reset()

    def _begin_job(self, job: Job) -> JobExecution | None:
        """Tell RQ that the job begins; None if that failed."""
        try:
            self.set_state(WorkerStatus.BUSY)
            execution = self.prepare_execution(job)
            self.prepare_job_execution(job, remove_from_intermediate_queue=True)
        except (RedisError, *FAULTS) as error:
            log.warning("redis failed, or held unreadable data, at the start of a run", job=job.id, error=str(error))
            return None
        job.started_at = datetime.now(UTC)
        return execution

    def _end_job(
        self, job: Job, queue: Queue, execution: JobExecution | None, outcome: RunOutcome, moments: dict[str, float]
    ) -> None:
        """Tell RQ that the job has ended; one whose process died is in the failed registry."""
        if execution is None:
            return
        job.ended_at = datetime.now(UTC)
        try:
            if outcome.died:
                self.handle_job_failure(job, queue, exc_string=outcome.why or "", execution=execution)
            else:
                job._result = {**asdict(outcome), **moments}  # noqa: SLF001 - where RQ itself puts it
                job._status = JobStatus.FINISHED  # noqa: SLF001 - likewise
                self.handle_job_success(job, queue, queue.started_job_registry, execution)
            self.set_state(WorkerStatus.IDLE)
        except (RedisError, *FAULTS) as error:
            log.warning("redis failed, or held unreadable data, at the end of a run", job=job.id, error=str(error))
        finally:
            self.executions.pop(execution.id, None)


def _moments(watch: RunWatch, record: Execution) -> dict[str, float]:
    """Return when the run was taken, claimed and its flow began, in seconds since the epoch, for the job's result."""
    claimed, started = watch.process.last(RunClaimed), watch.process.last(FlowStarted)
    return {
        "taken_at": record.since,
        **({"claimed_at": claimed.at} if claimed is not None else {}),
        **({"started_at": started.at} if started is not None else {}),
    }
