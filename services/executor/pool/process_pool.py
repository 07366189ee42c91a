"""The process pool: fork servers, one generation after the other, and the slots that they fork.

Each slot has a number, from 0 to the number of slots less one. A number belongs to one generation from the request for
its slot until that slot has ended, so that two slots never have the same number: a new generation gets numbers as the
slots of the old one end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from services.executor.flow_files.flow_files import FlowFiles, Source
from services.executor.pipes import Message
from services.executor.pool.fork_server_handle import ForkServerHandle, say
from services.executor.pool.halted import kill_halted, kill_stopped
from services.executor.pool.process_template import ProcessTemplate
from services.executor.process_exits import describe_exit
from services.executor.run_orders import order_for
from services.prefect_api.run_calls import Stopped

log = structlog.get_logger()

FIRST_SOURCES_SECONDS: Final = 3.0
"""How long the first fork server waits for Prefect to list the flows."""
RESTART_SECONDS: Final = 1.0
RENEW_SECONDS: Final = 10.0
"""Shortest life of a fork server before another replaces it because of libraries."""
LONGEST_LINE: Final = 16 * 1024 * 1024
HAND_BACK_SECONDS: Final = 0.7
"""How long the process of a run that is handed back has to end before it is killed."""


@dataclass
class SlotState:
    """A slot's process, and the run that it executes."""

    number: int
    generation: int
    pid: int
    client: int
    writer: asyncio.StreamWriter
    run: str | None = None
    job: str | None = None
    run_pid: int | None = None
    since: float = 0.0
    queued: float = 0.0
    """When the run was put on the queue."""
    waiting: bool = False
    """Whether the run is paused, so that its slot does not count as working."""
    leaving: bool = False
    """Whether the slot was sent to end after its present run."""


class Listener(Protocol):
    """Receives what happens in the process pool."""

    def busy(self, slot: SlotState) -> None:
        """A run begins on the slot."""

    def started(self, slot: SlotState, at: float) -> None:
        """The run's flow is loaded and about to run."""

    def early(self, run_id: str, state_id: str, until: float) -> None:
        """The run was taken before it was due."""

    def orphaned(self, run_id: str, since: float) -> None:
        """The run's slot has ended."""

    def settled(self, run_id: str, *, ok: bool) -> None:
        """A run was finalized, or could not be."""


class ProcessPool:
    """Keeps every slot running; ``assignment`` makes a fork server's assignment of socket path and sources."""

    def __init__(
        self,
        *,
        slot_numbers: int,
        waiting: int,
        assignment: Callable[[str, list[dict[str, str]]], Message],
        listener: Listener,
        unblock: Callable[[int], Coroutine[Any, Any, None]],
        recheck_seconds: float,
        halted_seconds: float,
        warms: bool,
        process_template: ProcessTemplate | None = None,
    ) -> None:
        self._count = slot_numbers
        self._waiting = waiting
        self._assignment = assignment
        self._listener = listener
        self._unblock = unblock
        self._recheck_seconds = recheck_seconds
        self._halted_seconds = halted_seconds
        self._warms = warms
        self._process_template = process_template if warms else None
        self._directory = Path(tempfile.mkdtemp(prefix="sluice-"))
        self._slot_numbers: dict[int, int] = {}
        self._asked: dict[int, float] = {}
        self._generations: dict[int, ForkServerHandle] = {}
        self._current: ForkServerHandle | None = None
        self._renew = asyncio.Event()
        self._renewing = False
        self._sources_known = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._remembered: Message | None = None
        self.slots: dict[int, SlotState] = {}
        self.files = FlowFiles()

    @property
    def running(self) -> dict[str, SlotState]:
        """The slots that execute a run, by the run's id."""
        return {slot.run: slot for slot in self.slots.values() if slot.run is not None}

    @property
    def waiting(self) -> int:
        """Number of slots whose run is paused."""
        return sum(slot.waiting for slot in self.slots.values())

    @property
    def blocked(self) -> bool:
        """Whether no other run can start until a paused one goes on or ends."""
        return self.waiting >= self._wanted

    @property
    def _wanted(self) -> int:
        """Number of slots wanted: one more for every paused run, up to the limit."""
        return self._count + min(self.waiting, self._waiting)

    async def run(self) -> None:
        """Keep the slots alive until cancelled; `end` must follow."""
        path = str(self._directory / f"{secrets.token_hex(4)}.sock")
        self._server = await asyncio.start_unix_server(self._serve, path=path, limit=LONGEST_LINE)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_warm(path))
            group.create_task(self._watch_files())
            group.create_task(kill_halted(self._processes, seconds=self._halted_seconds))

    async def end(self, *, finish_seconds: float) -> None:
        """Give the runs ``finish_seconds`` to finish, hand back those that do not, and end every process."""
        self._stopping = True
        generations = list(self._generations.values())
        for generation in generations:
            generation.say(do="stop")
            self._retire(generation.number)
        await self._slots_gone(finish_seconds)
        for slot in list(self.slots.values()):
            say(slot.writer, do="hand-back", seconds=HAND_BACK_SECONDS)
        await self._slots_gone(HAND_BACK_SECONDS + 1.5)
        kill_stopped(self.slots)  # the others settle their runs, and end; a stopped one would stay with its run
        for generation in generations:
            await generation.end(within_seconds=0.3)
        if hasattr(self, "_server"):
            self._server.close()
        for task in [*self._tasks, *self._handlers]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._handlers, return_exceptions=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def set_sources(self, sources: Iterable[Source]) -> None:
        """Set the flows whose libraries are to be preloaded."""
        self.files.set_sources(sources)
        self._sources_known.set()

    def tell(self, stopped: Stopped) -> None:
        """Send the new state to the run's process, if the run is on one of the slots."""
        slot = self.running.get(stopped.run_id)
        order = order_for(stopped)
        if slot is not None and order is not None:
            say(slot.writer, **order)

    def remember(self, message: Message) -> None:
        """Send the server's options to every slot, later ones included."""
        self._remembered = message
        for slot in self.slots.values():
            say(slot.writer, do="remember", **message)

    def settle(self, run_id: str, ending: str, message: str) -> bool:
        """Start a finalizer for the run; false while there is no fork server to start one."""
        if self._current is None:
            return False
        self._current.settling.add(run_id)
        self._current.say(do="settle", run=run_id, ending=ending, message=message)
        return True

    async def _keep_warm(self, path: str) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._sources_known.wait(), FIRST_SOURCES_SECONDS)
        number = 0
        while True:
            number += 1
            generation = await ForkServerHandle.start(
                number, self._assignment(path, self.files.sources), process_template=self._process_template
            )
            self._generations[number] = generation
            ending = self._spawn(self._outlive(generation))
            renewing = asyncio.create_task(self._renew.wait())
            try:
                await asyncio.wait({ending, renewing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                renewing.cancel()
            if ending.done():
                await asyncio.sleep(RESTART_SECONDS)
            self._renew.clear()

    async def _outlive(self, generation: ForkServerHandle) -> None:
        code = await generation.process.wait()
        self._generations.pop(generation.number, None)
        if self._current is generation:
            self._current = None
        self._renewing = self._renewing and generation.number < max(self._generations, default=0)
        if not self._stopping and not generation.retired:
            log.warning("the fork server ended, starting another", generation=generation.number, code=code)
        self._retire(generation.number)
        for run_id in generation.settling:  # the finalizers have ended with the fork server
            self._listener.settled(run_id, ok=False)
        for number, owner in list(self._slot_numbers.items()):
            if owner == generation.number and number not in self.slots:
                self._vacate(number, owner)

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(self._recheck_seconds)
            current = self._current
            if current is None or not self._warms:
                continue
            changed = self.files.to_probe()
            if changed:
                current.say(do="probe", sources=changed)
            elif self._renewing or time.monotonic() - current.started <= RENEW_SECONDS:
                continue
            elif self.files.worth_warming(current.libraries):
                log.info("flows need more libraries, starting another fork server")
                self._renewing = True
                self._renew.set()

    def _processes(self) -> dict[int, str]:
        fork_servers = (generation.process.pid for generation in self._generations.values())
        return {**dict.fromkeys(fork_servers, "fork server"), **dict.fromkeys(self.slots, "slot")}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        if handler is not None:
            self._handlers.add(handler)
            handler.add_done_callback(self._handlers.discard)
        try:
            with contextlib.suppress(
                asyncio.CancelledError
            ):  # no other code awaits this task; asyncio would log the error
                await self._attend(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        slot: SlotState | None = None
        with contextlib.suppress(OSError, ValueError):
            async for line in reader:
                message: Message = json.loads(line)
                if message["kind"] == "slot":
                    slot = SlotState(
                        message["number"], message["generation"], message["pid"], message["client"], writer
                    )
                    self._slot_number(slot)
                elif slot is not None:
                    self._hear_slot(slot, message)
                else:
                    self._hear_warm(message, writer)
        if slot is not None:
            self._gone(slot)

    def _hear_warm(self, message: Message, writer: asyncio.StreamWriter) -> None:
        match message["kind"]:
            case "warm":
                if message["generation"] in self._generations:
                    self._welcome(self._generations[message["generation"]], message, writer)
            case "probed":
                self._note(message)
            case "settled":
                for generation in self._generations.values():
                    generation.settling.discard(message["run"])
                self._listener.settled(message["run"], ok=message["ok"])
            case "slot-ended":
                if message["status"] and not self._stopping:
                    log.warning("a slot died", slot=message["number"], how=describe_exit(message["status"]))
                self._vacate(message["number"], message["generation"])
            case _:
                pass

    def _hear_slot(self, slot: SlotState, message: Message) -> None:
        match message["kind"]:
            case "busy":
                slot.run, slot.job = message["run"], message["job"]
                slot.run_pid, slot.since, slot.queued = message["pid"], message["at"], message["queued"]
                self._listener.busy(slot)
            case "waiting" | "working":
                slot.waiting = message["kind"] == "waiting"
                self._adapt()
            case "started":
                self._listener.started(slot, message["at"])
            case "idle":
                slot.run = slot.job = slot.run_pid = None
                slot.waiting = False
                self._adapt()
                if message["outcome"]["step"] == "early":
                    self._listener.early(message["run"], message["job"], message["outcome"]["until"])
            case _:
                pass

    def _welcome(self, generation: ForkServerHandle, message: Message, writer: asyncio.StreamWriter) -> None:
        generation.writer = writer
        generation.libraries = frozenset(message["libraries"])
        log.info("slots are ready", generation=generation.number, libraries=len(generation.libraries))
        previous, self._current = self._current, generation
        self._renewing = False
        if previous is not None:
            previous.retired = True
            previous.say(do="stop")
            self._retire(previous.number)
        self._adapt()

    def _adapt(self) -> None:
        """Request the slots that are missing, and end idle ones that are too many."""
        if self._current is None or self._stopping:
            return
        missing = self._wanted - len(self._slot_numbers)
        for number in itertools.filterfalse(
            self._slot_numbers.__contains__, range(len(self._slot_numbers) + max(missing, 0))
        ):
            self._fill(number)
        staying = [slot for slot in self.slots.values() if not slot.leaving]
        spare = len(staying) - self._wanted
        for slot in sorted((slot for slot in staying if slot.run is None), key=lambda slot: -slot.number)[
            : max(spare, 0)
        ]:
            self._stop(slot)

    def _retire(self, generation: int) -> None:
        """Have the slots of a generation end after their present runs."""
        for slot in self.slots.values():
            if slot.generation == generation:
                self._stop(slot)

    def _stop(self, slot: SlotState) -> None:
        slot.leaving = True
        say(slot.writer, do="stop")
        self._spawn(self._unblock(slot.client))

    def _slot_number(self, slot: SlotState) -> None:
        self.slots[slot.pid] = slot
        if self._remembered is not None:
            say(slot.writer, do="remember", **self._remembered)
        if self._current is None or slot.generation != self._current.number:
            self._stop(slot)
        else:
            self._adapt()  # the paused run for which the slot was requested may have gone on

    def _gone(self, slot: SlotState) -> None:
        self.slots.pop(slot.pid, None)
        if slot.generation not in self._generations:  # otherwise the fork server reports its end
            self._vacate(slot.number, slot.generation)
        if slot.run is not None:
            if slot.run_pid is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(slot.run_pid, signal.SIGKILL)
            self._listener.orphaned(slot.run, slot.since)

    def _fill(self, number: int) -> None:
        wanted = self._current is not None and not self._stopping and len(self._slot_numbers) < self._wanted
        if self._current is not None and wanted and number not in self._slot_numbers:
            self._slot_numbers[number] = self._current.number
            self._asked[number] = time.monotonic()
            self._current.say(do="start-slot", number=number)

    def _vacate(self, number: int, generation: int) -> None:
        if self._slot_numbers.get(number) == generation:
            del self._slot_numbers[number]
            self._spawn(self._refill(number))

    async def _refill(self, number: int) -> None:
        """Replace a slot, at most once a second, whatever ended it."""
        await asyncio.sleep(self._asked.get(number, 0.0) + RESTART_SECONDS - time.monotonic())
        self._fill(number)

    def _note(self, message: Message) -> None:
        news = self.files.note(message)
        if news:
            log.warning("a flow does not import", **message["source"], problem=news)
        elif news is not None:
            log.info("a flow imports again", **message["source"])

    async def _slots_gone(self, within_seconds: float) -> None:
        deadline = time.monotonic() + within_seconds
        while self.slots and time.monotonic() < deadline:  # noqa: ASYNC110 - ends within seconds
            await asyncio.sleep(0.02)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
