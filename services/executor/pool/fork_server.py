"""The fork server: a process that imports Prefect and the flows' libraries, and forks the slots.

The process template forks it, or ``python -m services.executor.pool.fork_server`` reads its assignment, one JSON line,
from standard input. The fork server has no event loop, no thread, and only the connection to the role's process, so
that forking is safe.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog
from redis.exceptions import RedisError

from config.logs import configure_logging
from config.settings import LogSettings, RedisSettings
from events.errors import Backpressure, TransientError
from services.common.process_tree import Strays, adopt_orphans, reap_children
from services.executor.pipes import Link, Message
from services.executor.pool.run_process import RunProcess, fork
from services.executor.pool.starters import ForkStarter, SpawnStarter
from services.store.connection import connect_sync
from services.store.runs.executions import Executions

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
RESTART_SECONDS: Final = 1.0
PROBE_SECONDS: Final = 120.0


class ForkServer:
    """One generation of slots."""

    def __init__(self, assignment: Message) -> None:
        self._assignment = assignment
        self._link = Link(assignment["socket"])
        self._slots: dict[int, int] = {}
        self._chores: list[RunProcess] = []
        self._wake_read, self._wake_write = os.pipe()
        self._stopping = False
        self._generation: int = assignment["generation"]
        self._environment: dict[str, str] = assignment["environment"]
        self._shelf = Path(assignment["shelf"])
        self._libraries: set[str] = set()
        # Not connected here: each slot connects for itself. The slots share the memory of the client's many tables.
        self._redis = connect_sync(assignment["redis_url"], RedisSettings(**assignment["redis"]))
        self._starter: ForkStarter | SpawnStarter | None = None

    def run(self) -> None:
        """Serve until the role's process sends stop or ends, and the slots have ended."""
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._stop())
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        adopt_orphans()
        if not self._link.connect():
            return
        if self._assignment["mode"] == "fork":
            self._warm_up()
        options: dict[str, Any] = {
            "name": self._assignment["name"],
            "environment": self._environment,
            "shelf": self._shelf,
        }
        self._starter = ForkStarter(**options) if self._assignment["mode"] == "fork" else SpawnStarter(**options)
        gc.collect()
        gc.freeze()
        self._link.send(kind="warm", generation=self._generation, pid=os.getpid(), libraries=sorted(self._libraries))
        while self._link.alive and not self._stopping:
            self._wait()
            for message in self._link.receive():
                self._obey(message)
            self._reap()
        while (
            self._slots or self._chores
        ):  # slots notice the lost connection themselves; their runs go on to their ends
            self._wait()
            self._reap()

    def _warm_up(self) -> None:
        import encodings.idna  # noqa: F401 - what the first connection of every fork would import

        os.environ.setdefault("PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED", "false")
        import services.executor.finalizing.finalizer
        import services.executor.finalizing.run_observer
        import services.executor.flow_files.import_probe
        import services.executor.pool.slot_worker
        import services.executor.process.flow_run_process

        for findings in self._probe_all(self._assignment["sources"]):
            self._link.send(kind="probed", **findings)
            self._libraries.update(findings["libraries"])
        names = [name for name in sorted(self._libraries) if name not in sys.modules]
        poisonous = self._in_fork(lambda: services.executor.flow_files.import_probe.leaves_traces(names))
        if poisonous is None:
            log.warning("the libraries of the flows cannot be preloaded", libraries=len(names))
            return
        if poisonous:
            log.info("libraries that start threads are imported by each run itself", libraries=poisonous)
        services.executor.flow_files.import_probe.import_libraries(
            name for name in names if name.partition(".")[0] not in poisonous
        )

    def _probe_all(self, sources: Sequence[Message]) -> list[Message]:
        from services.executor.flow_files.import_probe import FlowSource, ImportFindings

        found = []
        for source in sources:
            answer = self._in_fork(partial(_probe, source, self._shelf))
            if answer is None:
                problem = "importing it ended the process, or took too long"
                answer = ImportFindings(FlowSource(**source), problem, (FlowSource(**source).file,), ()).as_message()
            found.append(answer)
        return found

    def _in_fork(self, work: Callable[[], Any]) -> Any:
        """Return the result of ``work`` from a process of its own; None when that process died or was late."""

        def entry(_run_id: str, reports: int, _intents: int) -> NoReturn:
            answer = json.dumps(work()).encode()
            with os.fdopen(reports, "wb") as out:
                out.write(answer)
            os._exit(0)

        child = fork("", entry, forget=self._forget)
        os.set_blocking(child.reports.descriptor, True)
        received = b""
        deadline = time.monotonic() + PROBE_SECONDS
        while time.monotonic() < deadline:
            if select.select([child.reports.descriptor], [], [], 1.0)[0]:
                chunk = os.read(child.reports.descriptor, 1 << 20)
                if not chunk:
                    break
                received += chunk
        child.kill()
        while not child.reap():
            time.sleep(0.005)
        child.close()
        try:
            return json.loads(received)
        except ValueError:
            return None

    def _obey(self, message: Message) -> None:
        match message["do"]:
            case "stop":
                self._stop()
            case "start-slot":
                self._start_slot(message["number"])
            case "probe":
                for findings in self._probe_all(message["sources"]):
                    self._link.send(kind="probed", **findings)
            case "settle":
                self._chores.append(
                    self._ready().finalizer(message["run"], message["ending"], message["message"], forget=self._forget)
                )
            case _:
                pass

    def _start_slot(self, number: int) -> None:
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
        from services.executor.pool.slot_worker import SlotWorker
        from services.job_queues.workers import bridge_logs

        adopt_orphans()
        bridge_logs()
        assignment = self._assignment
        link = Link(assignment["socket"])
        if not link.connect():
            return 0
        redis = self._redis
        executions = Executions(redis, name=assignment["executor"], alive_seconds=assignment["lost_seconds"])
        while not _takes_writes(executions, assignment["name"]):
            link.receive(RESTART_SECONDS)
            if not link.alive or self._stopping:
                return 0
        slot = SlotWorker(
            assignment["queues"],
            redis,
            f"{assignment['name']}-{number}-{os.getpid()}",
            link=link,
            starter=self._ready(),
            executions=executions,
            instance=assignment["name"],
            number=number,
            generation=self._generation,
            grace_seconds=assignment["grace_seconds"],
            lost_seconds=assignment["lost_seconds"],
        )
        gc.collect()
        gc.freeze()
        slot.work()
        return 0

    def _ready(self) -> ForkStarter | SpawnStarter:
        if self._starter is None:
            msg = "the fork server has not imported its libraries yet"
            raise RuntimeError(msg)
        return self._starter

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
        for pid, status in reap_children():
            for chore in [chore for chore in self._chores if chore.pid == pid]:
                chore.close()
                self._chores.remove(chore)
                self._link.send(kind="settled", run=chore.run_id, ok=status == 0)
            number = self._slots.pop(pid, None)
            if number is not None:
                if os.WIFSIGNALED(status):
                    self._strays().kill()  # processes that its run started are children of this process now
                self._link.send(kind="slot-ended", number=number, generation=self._generation, status=status)

    def _strays(self) -> Strays:
        return Strays(known={*self._slots, *(chore.pid for chore in self._chores)})


def _takes_writes(executions: Executions, instance: str) -> bool:
    """Whether Redis accepts writes: a replica, or a full server, responds to PING all the same."""
    try:
        executions.live(instance)
    except (TransientError, Backpressure):
        return False
    return True


def _probe(source: Message, shelf: Path) -> Message:
    from services.executor.flow_files.import_probe import FlowSource, probe

    return probe(FlowSource(**source), shelf=shelf).as_message()


def serve(assignment: Message) -> None:
    """Run the fork server that the assignment describes; return when it has stopped."""
    configure_logging(LogSettings(**assignment["log"]), role="executor")
    ForkServer(assignment).run()


def main() -> None:
    """Run the fork server of the assignment on standard input."""
    serve(json.loads(sys.stdin.readline()))


if __name__ == "__main__":
    main()
