"""A slot: the RQ worker that takes one run at a time, starts its run process, and has it finalized.

A slot has one thread, one connection to Redis and one to the role's process; it never imports a flow.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol

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
from services.common.process_tree import Strays, reap_children
from services.executor.end_reason import FINALIZER_SECONDS, EndReason
from services.executor.pipes import Link, Message
from services.executor.pool.run_process import RunProcess
from services.executor.process_exits import describe_exit, oom_kill_count
from services.job_queues.workers import Gated
from services.store.connection import SyncRedis
from services.store.runs.executions import Execution, Executions
from services.store.unreadable import FAULTS

log = structlog.get_logger()

ACK_SECONDS: Final = 1.0
"""How long a run process may take to confirm the meaning of the coming SIGTERM."""
LIVE_SECONDS: Final = 2.0
HANDED_BACK: Final = (
    "The executor was stopped; the run goes on as soon as one is there, or waits on until it is answered."
)
OBSERVE_SECONDS: Final = 5.0
"""How often the slot reads its run in Prefect while the role's process is down."""
ORPHANED: Final = "The executor died, and neither Redis nor Prefect could be reached to go on without it."
WAIT_SECONDS: Final = 1.0
"""How often the slot checks limits and connections during a run; events wake it at once."""


class ProcessStarter(Protocol):
    """How a slot starts its processes."""

    def start_run(
        self, run_id: str, *, queued: Message | None, remembered: Message | None, forget: Callable[[], None]
    ) -> RunProcess:
        """Start the run's run process.

        ``queued``: the state for which the run was queued, and when; ``remembered``: the server options of the role's
        process.
        """

    def finalizer(self, run_id: str, ending: str, message: str, *, forget: Callable[[], None]) -> RunProcess:
        """Start the run's finalizer."""

    def observer(self, run_id: str, *, forget: Callable[[], None]) -> RunProcess:
        """Start a process that reads the run's state and reports the order to the slot."""


class SlotWorker(Gated, Worker):
    """One slot; ``work`` returns when it is stopped, when the role's process has ended, or when Redis fails."""

    def __init__(
        self,
        names: Sequence[str],
        redis: SyncRedis,
        name: str,
        *,
        link: Link,
        starter: ProcessStarter,
        executions: Executions,
        instance: str,
        number: int,
        generation: int,
        grace_seconds: float,
        lost_seconds: float,
    ) -> None:
        super().__init__(names, redis, name, worker_ttl=60, job_monitoring_interval=15)
        self._link = link
        self._starter = starter
        self._records = executions
        self._instance = instance
        self._number = number
        self._generation = generation
        self._grace_seconds = grace_seconds
        self._alone_seconds = max(lost_seconds, 3 * OBSERVE_SECONDS)
        """How long the slot goes on with a run while the role's process, Redis and Prefect are all out of reach."""
        self._remembered: Message | None = None
        self._held: Execution | None = None
        self._observer: RunProcess | None = None
        self._observe_at = 0.0
        self._reached_at = 0.0
        """When the role's process, Redis or Prefect was last reached."""
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
        client_id = self.connection.client_id()
        self._link.send(
            kind="slot", number=self._number, generation=self._generation, pid=os.getpid(), client=client_id
        )

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
        self._hear_role()
        if not self._link.alive:
            self._stop()
        self._hear_commands()

    def _hear_role(self) -> None:
        """Between runs."""
        for message in self._link.receive():
            if message["do"] == "stop":
                self._stop()
            elif message["do"] == "remember":
                self._remembered = message

    def _hear_commands(self) -> None:
        if self.pubsub is not None:
            with contextlib.suppress(RedisError):
                while self.pubsub.get_message(ignore_subscribe_messages=True, timeout=0):
                    pass

    @override
    def execute_job(self, job: Job, queue: Queue) -> None:
        """Execute the job's run and update RQ's registries; if an update fails, the run goes on."""
        run_id = str(job.args[0])
        record = Execution(run_id=run_id, instance=self._instance, since=time.time())
        free = self._hold(record)
        oom_kills, strays = oom_kill_count(), Strays()
        told = self._link.receive()  # messages may have waited as long as the slot has for this job
        self._remembered = next((news for news in reversed(told) if news["do"] == "remember"), self._remembered)
        queued = job.enqueued_at.timestamp() if job.enqueued_at is not None else record.since
        run_process = self._starter.start_run(
            run_id,
            queued={"state_id": job.id, "at": queued, "free": free},
            remembered=self._remembered,
            forget=self._forget,
        )
        if free:  # else another slot has the run and receives its states
            self._link.send(kind="busy", run=run_id, job=job.id, pid=run_process.pid, at=record.since, queued=queued)
        self._horse_pid = run_process.pid  # for RQ's commands
        execution = self._open_books(job)
        try:
            self._ride(run_process, job, execution, told)
        finally:
            self._horse_pid = 0
            run_process.close()
        outcome, problem = self._judge(run_process, oom_kills)
        outcome |= {"taken_at": record.since, **_moments(run_process)}
        if run_process.ending is not None:
            killed = strays.kill()
            if killed:
                log.info("killed what the run left behind", run=run_id, processes=killed)
        if free:
            self._see_settled(run_process, self._held or record)
        self._close_books(job, queue, execution, outcome, problem)
        self._link.send(kind="idle", number=self._number, run=run_id, job=job.id, outcome=outcome, at=time.time())

    def _hold(self, record: Execution) -> bool:
        """Register the run for this slot; false where another slot has it, or might: then it must not be claimed."""
        try:
            holder = self._records.begin(record)
        except (TransientError, Backpressure) as error:
            log.warning("the register of executions could not be written", error=str(error))
            return False
        self._held = record if holder is None else None
        return holder is None

    def _see_settled(self, run_process: RunProcess, record: Execution) -> None:
        """Finalize the run now, or leave a debt in Redis for when Prefect can be reached."""
        if run_process.ending is None:
            self._register(lambda: self._records.end(record))
            return
        self._owe(*run_process.ending)  # written first: this slot may end before the run is finalized
        if run_process.ending[1] == ORPHANED:
            return  # Prefect is out of reach; the record in Redis, if Redis comes back, keeps the debt
        if self._settle(record.run_id, *run_process.ending):
            for known in (replace(record, ending=run_process.ending[0], message=run_process.ending[1]), record):
                self._register(partial(self._records.end, known))

    def _live_alone(self) -> None:
        """Without the role's process, renew a sign of life that is for this slot's run alone.

        One sign of life for all slots of the executor would hide that the slot of another run has died, too.
        """
        alone = f"{self._instance}/{self._number}"
        self._records.live(alone)
        if self._held is not None and self._held.instance != alone:
            self._held = self._records.take_over(self._held, alone) or self._held

    def _owe(self, ending: str, message: str) -> None:
        """Write the run's end reason to the register, if this slot has the run."""
        if self._held is not None:
            self._register(partial(self._records.owe, self._held, ending, message))

    def _ride(
        self,
        run_process: RunProcess,
        job: Job,
        execution: JobExecution | None,
        told: Sequence[Message],
    ) -> None:
        kill_at: float | None = None
        for message in told:
            kill_at = self._obey(message, run_process) or kill_at
        heartbeat_at = time.monotonic() + self.job_monitoring_interval
        live_at = 0.0
        self._reached_at = time.monotonic()
        while not run_process.reap():
            self._wait(run_process)
            self._pass_on(run_process)
            for message in self._link.receive():
                kill_at = self._obey(message, run_process) or kill_at
            self._hear_commands()
            now = time.monotonic()
            if (
                run_process.ending is None
                and (reason := _over_limit(run_process) or _overtaken(run_process)) is not None
            ):
                kill_at = self._end(run_process, *reason)
            if kill_at is not None and now >= kill_at:
                run_process.kill()
                kill_at = None
            if not self._link.alive and now >= live_at:
                live_at = now + LIVE_SECONDS
                if self._register(self._live_alone):
                    self._reached_at = now
            if self._link.alive:
                self._reached_at = now
            else:
                kill_at = self._look(run_process, now) or self._give_up(run_process, now) or kill_at
            if now >= heartbeat_at and execution is not None:
                heartbeat_at = now + self.job_monitoring_interval
                with contextlib.suppress(RedisError):
                    self.maintain_heartbeats(job, execution)
        run_process.hear()

    def _look(self, run_process: RunProcess, now: float) -> float | None:
        """Read the run's state at intervals, in the role's place; return when to kill the process, None if not."""
        if self._observer is None:
            if now >= self._observe_at:
                self._observer = self._starter.observer(run_process.run_id, forget=self._forget)
                self._observe_at = now + OBSERVE_SECONDS
            return None
        over = self._observer.reap()
        kill_at = None
        for order in self._observer.hear():
            kill_at = self._obey(order, run_process) or kill_at
        if over:
            if self._observer.status == 0:
                self._reached_at = now
            self._observer.close()
            self._observer = None
        elif now >= self._observe_at:
            self._observer.kill()
        return kill_at

    def _give_up(self, run_process: RunProcess, now: float) -> float | None:
        """End a run that other executors count as lost by now; return when to kill the process, None if not."""
        if run_process.ending is not None or now - self._reached_at < self._alone_seconds:
            return None
        log.warning(
            "the role's process, redis and prefect are out of reach, the run is ended",
            run=run_process.run_id,
            seconds=self._alone_seconds,
        )
        return self._end(run_process, EndReason.LOST, ORPHANED, "cancel")

    def _pass_on(self, run_process: RunProcess) -> None:
        """Forward the run's reports that concern the role's process."""
        for message in run_process.hear():
            if message["step"] == "started":
                self._link.send(kind="started", number=self._number, run=run_process.run_id, at=message["at"])
            elif message["step"] in {"waiting", "working"}:
                self._link.send(kind=message["step"], number=self._number, run=run_process.run_id)

    def _wait(self, run_process: RunProcess) -> None:
        watched: list[Any] = [self._wake_read]
        if not run_process.reports.ended:
            watched.append(run_process.reports.descriptor)
        if self._link.alive:
            watched.append(self._link)
        select.select(watched, [], [], WAIT_SECONDS)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _obey(self, message: Message, run_process: RunProcess) -> float | None:
        """Execute an order of the role's process; return when to kill the run process, None if not."""
        match message["do"]:
            case "stop":
                self._stop()
            case "remember":
                self._remembered = message
            case "cancel" if message["run"] == run_process.run_id and run_process.ending is None:
                return self._end(run_process, "cancelled", "The run was cancelled.", "cancel")
            case "suspend" if message["run"] == run_process.run_id:
                run_process.suspend(message["state"], message["occurred"])
            case "overtaken" if message["run"] == run_process.run_id:
                run_process.overtaken.hear(message)
            case "hand-back" if run_process.ending is None:
                self._stop()
                self._owe(
                    EndReason.HANDED_BACK, HANDED_BACK
                )  # written now: this slot may be killed before it can finalize the run
                return self._end(
                    run_process, EndReason.HANDED_BACK, HANDED_BACK, "reschedule", within=message["seconds"]
                )
        return None

    def _end(
        self, run_process: RunProcess, ending: str, message: str, intent: str, *, within: float | None = None
    ) -> float:
        """Send the run process an intent and SIGTERM; return when to kill it.

        Without its confirmation of the intent, a SIGTERM would make it report a crash: then it is killed at once.
        """
        run_process.ending = (ending, message)
        run_process.tell_intent(intent)
        deadline = time.monotonic() + ACK_SECONDS
        while "intent" not in run_process.steps and time.monotonic() < deadline and not run_process.reap():
            select.select([] if run_process.reports.ended else [run_process.reports.descriptor], [], [], 0.05)
            run_process.hear()
        if "intent" not in run_process.steps:
            return time.monotonic()
        run_process.terminate()
        return time.monotonic() + (self._grace_seconds if within is None else within)

    def _judge(self, run_process: RunProcess, oom_kills: int) -> tuple[dict[str, Any], str | None]:
        """Return the job's result, and the problem for RQ's failed registry if there is one."""
        for step in ("gone", "early", "refused"):
            if step in run_process.steps:
                return {**run_process.steps[step], "step": step}, None
        if run_process.ending is not None:
            return {"step": run_process.ending[0], "why": run_process.ending[1]}, None
        status = run_process.status or 0
        if "finished" in run_process.steps and status == 0:
            return {"step": "finished"}, None
        problem = describe_exit(status, oom_kills=oom_kill_count() - oom_kills)
        if "failed" in run_process.steps:
            problem = f"The process of the run could not execute it: {run_process.steps['failed']['why']}"
        run_process.ending = ("crashed", problem)
        return {"step": "crashed", "why": problem}, problem

    def _register(self, write: Callable[[], None]) -> bool:
        """Write to the register of executions; return whether that worked."""
        try:
            write()
        except (TransientError, Backpressure) as error:
            log.warning("the register of executions could not be written", error=str(error))
            return False
        return True

    def _settle(self, run_id: str, ending: str, message: str) -> bool:
        """Finalize the run in a process that may run the flow's hooks; false if that was not possible now."""
        for attempt in range(3):
            settler = self._starter.finalizer(run_id, ending, message, forget=self._forget)
            deadline = time.monotonic() + FINALIZER_SECONDS
            while not settler.reap() and time.monotonic() < deadline:
                self._wait(settler)
                settler.hear()
            if not settler.reap():
                settler.kill()
                settler.reap()
                log.warning("the hooks of a run did not end in time", run=run_id, seconds=FINALIZER_SECONDS)
            settler.close()
            if settler.status == 0:
                return True
            log.warning("a run could not be finalized", run=run_id, ending=ending, attempt=attempt + 1)
            time.sleep(0.5 * (attempt + 1))
        return False

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

    def _open_books(self, job: Job) -> JobExecution | None:
        try:
            self.set_state(WorkerStatus.BUSY)
            execution = self.prepare_execution(job)
            self.prepare_job_execution(job, remove_from_intermediate_queue=True)
        except (RedisError, *FAULTS) as error:
            log.warning("redis failed, or held unreadable data, at the start of a run", job=job.id, error=str(error))
            return None
        job.started_at = datetime.now(UTC)
        return execution

    def _close_books(
        self, job: Job, queue: Queue, execution: JobExecution | None, outcome: dict[str, Any], problem: str | None
    ) -> None:
        if execution is None:
            return
        job.ended_at = datetime.now(UTC)
        try:
            if problem is None:
                job._result = outcome  # noqa: SLF001 - where RQ itself puts it
                job._status = JobStatus.FINISHED  # noqa: SLF001 - likewise
                self.handle_job_success(job, queue, queue.started_job_registry, execution)
            else:
                self.handle_job_failure(job, queue, exc_string=problem, execution=execution)
            self.set_state(WorkerStatus.IDLE)
        except (RedisError, *FAULTS) as error:
            log.warning("redis failed, or held unreadable data, at the end of a run", job=job.id, error=str(error))
        finally:
            self.executions.pop(execution.id, None)


def _moments(run_process: RunProcess) -> dict[str, float]:
    """Return when the run was claimed and its flow began, in seconds since the epoch, for the job's result."""
    return {f"{step}_at": run_process.steps[step]["at"] for step in ("claimed", "started") if step in run_process.steps}


def _overtaken(run_process: RunProcess) -> tuple[str, str, str] | None:
    """Return end reason, message and intent for a run that needs no process any more."""
    verdict = run_process.overtaken.verdict(
        run_process.steps, run_process.own_states, proposing=run_process.proposing > 0
    )
    return None if verdict is None else (EndReason.OVERTAKEN, *verdict)


def _over_limit(run_process: RunProcess) -> tuple[str, str, str] | None:
    limits = run_process.steps.get("limits", {})
    seconds, memory = limits.get("seconds"), limits.get("memory_mb")
    if seconds and time.monotonic() - run_process.started > seconds:
        return (
            "timed-out",
            f"The run was stopped after its time limit of {seconds:g} s (job variable sluice_time_seconds).",
            "cancel",
        )
    if memory and run_process.memory_mb() > memory:
        message = f"The run was stopped: it used more than its {memory:g} MiB of memory (sluice_memory_mb)."
        return "crashed", message, "cancel"
    return None
