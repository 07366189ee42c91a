"""The fork server: a process that imports Prefect and the flows' libraries, and forks the slots.

The process template forks it, or ``python -m services.executor.pool.fork_server`` reads its assignment, one JSON line,
from standard input. The fork server has no event loop, no thread, and only the connection to the role's process, so
that forking is safe.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import structlog
from redis.exceptions import RedisError

from config.logs import configure_logging
from events.errors import Backpressure, TransientError
from services.common.process_tree import Strays, adopt_orphans, reap_children, show_as, unmap_code
from services.executor.messages import (
    Assignment,
    FinalizeRun,
    FlowSource,
    ForkServerReady,
    ImportFindings,
    ProbeFlows,
    ProcessMessage,
    RunFinalized,
    SlotEnded,
    StartSlot,
    Stop,
    ThreadStarters,
)
from services.executor.pipes import Link, from_line, prepare, write
from services.executor.pool.run_process import RunProcess, fork, spawn
from services.executor.pool.starters import Start, fork_to_carry_out
from services.store.connection import connect_sync
from services.store.runs.executions import Executions

if TYPE_CHECKING:
    from services.executor.process.flow_run_process import Prepared

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
RESTART_SECONDS: Final = 1.0
PROBE_SECONDS: Final = 120.0
REST_SECONDS: Final = 5.0
"""So long after the last message the fork server rests."""


class ForkServer:
    """One generation of slots."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._link = Link(assignment.socket)
        self._slots: dict[int, int] = {}
        self._finalizers: list[RunProcess] = []
        self._wake_read, self._wake_write = os.pipe()
        self._stopping = False
        self._prepared: Prepared | None = None
        self._start: Start = partial(spawn, environment=assignment.environment, shelf=assignment.shelf)
        # Not connected here: each slot connects for itself. The slots share the memory of the client's many tables.
        self._redis = connect_sync(assignment.redis_url, assignment.redis)

    def run(self) -> None:
        """Serve until the role's process sends `Stop` or ends, and the slots have ended."""
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._stop())
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        adopt_orphans()
        if not self._link.connect():
            return
        libraries = self._warm_up() if self._assignment.mode == "fork" else set()
        gc.collect()
        gc.freeze()
        self._link.send(ForkServerReady(self._assignment.generation, tuple(sorted(libraries))))
        rests_at: float | None = time.monotonic() + REST_SECONDS
        while self._link.alive and not self._stopping:
            self._wait()
            for message in self._link.receive():
                self._obey(message)
                rests_at = time.monotonic() + REST_SECONDS
            self._reap()
            if rests_at is not None and time.monotonic() > rests_at:
                unmap_code()  # of the flows' libraries, which the fork server itself hardly runs
                rests_at = None
        while self._slots or self._finalizers:
            # Slots notice the lost connection themselves; their runs go on to their ends.
            self._wait()
            self._reap()

    def _warm_up(self) -> set[str]:
        """Import what slots and runs need; return the libraries of the flows."""
        import encodings.idna  # noqa: F401 - what the first connection of every fork would import

        os.environ.setdefault("PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED", "false")
        from services.executor.process.process_setup import quiet_arrow

        quiet_arrow(os.environ)
        from services.executor.flow_files import import_probe
        from services.executor.process.flow_run_process import Prepared

        prepare()
        libraries: set[str] = set()
        for findings in self._probe_all(self._assignment.sources):
            self._link.send(findings)
            libraries.update(findings.libraries)
        names = [name for name in sorted(libraries) if name not in sys.modules]
        found = self._result(self._in_fork(lambda: import_probe.thread_starters(names)))
        if isinstance(found, ThreadStarters):
            if found.packages:
                log.info("libraries that start threads are imported by each run itself", libraries=found.packages)
            import_probe.import_libraries(name for name in names if name.partition(".")[0] not in found.packages)
        else:
            log.warning("the libraries of the flows cannot be preloaded", libraries=len(names))
        assignment = self._assignment
        self._prepared = Prepared(assignment.environment)
        self._start = partial(
            fork_to_carry_out,
            environment=assignment.environment,
            shelf=assignment.shelf,
            prepared=self._prepared,
            forget=self._forget,
        )
        return libraries

    def _probe_all(self, sources: Iterable[FlowSource]) -> list[ImportFindings]:
        """Return what each source needs; as many are probed side by side as there are processors."""
        from services.executor.flow_files.import_probe import probe

        found: list[ImportFindings] = []
        under_way: deque[tuple[FlowSource, RunProcess]] = deque()

        def end_first() -> None:
            source, child = under_way.popleft()
            findings = self._result(child)
            if not isinstance(findings, ImportFindings):
                problem = "importing it ended the process, or took too long"
                findings = ImportFindings(source, problem, (source.file,), ())
            found.append(findings)

        for source in sources:
            under_way.append((source, self._in_fork(partial(probe, source, shelf=self._assignment.shelf))))
            if len(under_way) >= (os.cpu_count() or 1):
                end_first()
        while under_way:
            end_first()
        return found

    def _in_fork(self, work: Callable[[], ProcessMessage]) -> RunProcess:
        """Start the work in a process of its own, which `_result` must end."""

        def entry(reports: int, _orders: int) -> NoReturn:
            show_as("import probe")
            write(reports, work())
            os._exit(0)

        return fork("", entry, forget=self._forget)

    def _result(self, child: RunProcess) -> ProcessMessage | None:
        """Return the result of the work; None when its process died or was late."""
        messages = child.reports.read_all(within_seconds=PROBE_SECONDS)
        child.kill()
        while not child.reap():
            time.sleep(0.005)
        child.close()
        return messages[0] if messages else None

    def _obey(self, message: ProcessMessage) -> None:
        """Do what the role's process asks: start a slot, probe flow files, finalize a run, or stop."""
        match message:
            case Stop():
                self._stop()
            case StartSlot(number=number):
                self._start_slot(number)
            case ProbeFlows(sources=sources):
                for findings in self._probe_all(sources):
                    self._link.send(findings)
            case FinalizeRun():
                self._finalizers.append(self._start(message))
            case _:
                pass

    def _start_slot(self, number: int) -> None:
        """Fork a slot. The child never returns from here: it works, and exits."""
        pid = os.fork()
        if pid:
            self._slots[pid] = number
            return
        code = 1
        try:
            self._forget()
            signal.set_wakeup_fd(-1)
            code = self._be_slot(number)
        except (RedisError, TransientError, Backpressure) as error:
            log.warning("a slot lost redis and restarts", number=number, error=str(error))
            code = 0
        except BaseException:
            log.exception("slot failed", number=number)
        finally:
            os._exit(code)

    def _be_slot(self, number: int) -> int:
        """Work as a slot until it is told to stop, or the role's process has ended; return its exit code.

        It waits while Redis refuses writes: a run that is started then could not be noted in the register of
        executions.
        """
        from services.executor.pool.slot_worker import SlotWorker
        from services.job_queues.workers import bridge_logs

        adopt_orphans()
        bridge_logs()
        assignment = self._assignment
        link = Link(assignment.socket)
        if not link.connect():
            return 0
        executions = Executions(self._redis, name=assignment.executor, alive_seconds=assignment.lost_seconds)
        while not _takes_writes(executions, assignment.instance):
            select.select([link], [], [], RESTART_SECONDS)
            link.receive()  # notices that the role's process has ended
            if not link.alive or self._stopping:
                return 0
        slot = SlotWorker(
            number, assignment, redis=self._redis, link=link, executions=executions, prepared=self._prepared
        )
        gc.collect()
        gc.freeze()
        slot.work()
        return 0

    def _forget(self) -> None:
        self._link.close()
        for descriptor in (self._wake_read, self._wake_write):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _stop(self) -> None:
        self._stopping = True

    def _wait(self) -> None:
        watched: list[Any] = [self._wake_read]
        if self._link.alive:
            watched.append(self._link)
        select.select(watched, [], [], LOOK_SECONDS)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _reap(self) -> None:
        """Report slots and finalizers that have ended, and kill what the run of a killed slot has left running."""
        for pid, status in reap_children():
            for finalizer in [finalizer for finalizer in self._finalizers if finalizer.pid == pid]:
                finalizer.close()
                self._finalizers.remove(finalizer)
                self._link.send(RunFinalized(finalizer.run_id, ok=status == 0))
            number = self._slots.pop(pid, None)
            if number is not None:
                if os.WIFSIGNALED(status):  # processes that its run started are children of this process now
                    Strays(known={*self._slots, *(finalizer.pid for finalizer in self._finalizers)}).kill()
                self._link.send(SlotEnded(number, self._assignment.generation, status))


def _takes_writes(executions: Executions, instance: str) -> bool:
    """Whether Redis accepts writes. The sign of life does not show that: the executor may have ended it and left."""
    try:
        executions.check_writable(instance)
    except (TransientError, Backpressure):
        return False
    return True


def serve(assignment: Assignment) -> None:
    """Run the fork server that the assignment describes; return when it has stopped."""
    configure_logging(assignment.log, role="executor")
    show_as(f"fork server {assignment.generation}")
    ForkServer(assignment).run()


def main() -> None:
    """Run the fork server of the assignment on standard input."""
    serve(cast(Assignment, from_line(sys.stdin.buffer.readline())))


if __name__ == "__main__":
    main()
