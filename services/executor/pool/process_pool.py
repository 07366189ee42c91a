"""The process pool: fork servers, one generation after the other, and their connections and those of their slots."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import structlog

from services.common.lasting import Lasting
from services.common.process_tree import is_stopped, kill_all
from services.executor.flow_files.flow_files import FlowFiles
from services.executor.messages import (
    Assignment,
    FinalizeRun,
    FlowSource,
    ForkServerReady,
    HandBack,
    ImportFindings,
    OptionsRead,
    ProbeFlows,
    ProcessMessage,
    RunBegan,
    RunFinalized,
    RunPaused,
    SlotEnded,
    SlotIdle,
    SlotReady,
    Stop,
)
from services.executor.pipes import from_line
from services.executor.pool.fork_server_handle import ForkServerHandle, say
from services.executor.pool.process_template import ProcessTemplate
from services.executor.pool.slots import Slots, SlotState
from services.executor.process_exits import describe_exit
from services.executor.run_orders import order_for
from services.prefect_api.runs import StateChange
from services.prefect_api.server_options import ServerOptions

log = structlog.get_logger()

FIRST_SOURCES_SECONDS: Final = 3.0
"""How long the first fork server waits for Prefect to list the flows."""
RESTART_SECONDS: Final = 1.0
RENEW_SECONDS: Final = 10.0
"""Shortest life of a fork server before another replaces it because of libraries."""
LONGEST_LINE: Final = 16 * 1024 * 1024
HAND_BACK_SECONDS: Final = 0.7
"""How long the process of a run that is handed back has to end before it is killed."""


class ProcessPool:
    """Keeps every slot running."""

    def __init__(
        self,
        assignment: Assignment,
        *,
        slots: Slots,
        heard: Callable[[ProcessMessage, RunBegan | None], None],
        orphaned: Callable[[RunBegan], None],
        recheck_seconds: float,
        process_template: ProcessTemplate | None,
    ) -> None:
        """``assignment`` is that of every fork server, but for generation, socket and sources.

        ``heard`` gets every message of a slot, with the run that the slot has, and each `RunFinalized`; ``orphaned``
        gets a run whose slot has ended.
        """
        self._directory = Path(tempfile.mkdtemp(prefix="sluice-"))
        self._assignment = replace(assignment, socket=str(self._directory / f"{secrets.token_hex(4)}.sock"))
        self._heard = heard
        self._orphaned = orphaned
        self._recheck_seconds = recheck_seconds
        self._warms = assignment.mode == "fork"
        self._process_template = process_template if self._warms else None
        self._generations: dict[int, ForkServerHandle] = {}
        self._renew = asyncio.Event()
        self._renewing = False
        self._sources_known = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._options: OptionsRead | None = None
        self._server: asyncio.Server | None = None
        self.slots = slots
        self.files = FlowFiles()

    @property
    def blocked(self) -> bool:
        """Whether no other run can start until a paused one goes on or ends."""
        return self.slots.waiting >= self.slots.most

    async def run(self) -> None:
        """Keep the slots alive until cancelled; `end` must follow."""
        self._server = await asyncio.start_unix_server(self._serve, path=self._assignment.socket, limit=LONGEST_LINE)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_warm())
            group.create_task(self._watch_files())
            group.create_task(self._kill_stopped())

    async def end(self, *, finish_seconds: float) -> None:
        """Give the runs ``finish_seconds`` to finish, hand back those that do not, and end every process.

        A run that waits is handed back at once: it has nothing to finish.
        """
        self._stopping = True
        self.slots.fork_server = None
        generations = list(self._generations.values())
        for generation in generations:
            generation.say(Stop())
            self.slots.retire(generation.number)
        for slot in self.slots.by_pid.values():
            self._hand_back_if_waiting(slot)
        await self.slots.gone(finish_seconds)
        self.slots.tell_all(HandBack(HAND_BACK_SECONDS))
        await self.slots.gone(HAND_BACK_SECONDS + 1.5)
        # The others finalize their runs, and end; a stopped one would stay with its run.
        kill_all(pid for pid in self.slots.by_pid if is_stopped(pid))
        for generation in generations:
            await generation.end(within_seconds=0.3)
        if self._server is not None:
            self._server.close()
        for task in [*self._tasks, *self._handlers]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._handlers, return_exceptions=True)
        await self.slots.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def set_sources(self, sources: Iterable[FlowSource]) -> None:
        """Set the flows whose libraries are to be preloaded."""
        self.files.set_sources(sources)
        self._sources_known.set()

    def tell(self, change: StateChange) -> None:
        """Send the order that follows from a run's new state, if the run is on one of the slots."""
        slot = self.slots.running.get(change.run_id)
        order = order_for(change)
        if slot is not None and order is not None:
            say(slot.writer, order)

    def remember(self, options: ServerOptions) -> None:
        """Send the server's options to every slot, later ones included."""
        self._options = OptionsRead(options)
        self.slots.tell_all(self._options)

    def finalize(self, instruction: FinalizeRun) -> bool:
        """Start a finalizer for the run; false while there is no fork server to start one."""
        current = self.slots.fork_server
        if current is None:
            return False
        current.finalizing.add(instruction.run_id)
        current.say(instruction)
        return True

    async def _keep_warm(self) -> None:
        """Keep a fork server running; replace it when it ends or when flows need further libraries.

        The slots of the old one end after their present runs, so that no run is interrupted.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._sources_known.wait(), FIRST_SOURCES_SECONDS)
        number = 0
        while True:
            number += 1
            assignment = replace(self._assignment, generation=number, sources=self.files.sources)
            generation = await ForkServerHandle.start(assignment, process_template=self._process_template)
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
        """Wait for the end of a fork server, and note what ended with it: its slots, and the runs it was finalizing."""
        code = await generation.process.wait()
        self._generations.pop(generation.number, None)
        if self.slots.fork_server is generation:
            self.slots.fork_server = None
        self._renewing = self._renewing and generation.number < max(self._generations, default=0)
        if not self._stopping and not generation.retired:
            log.warning("the fork server ended, starting another", generation=generation.number, code=code)
        self.slots.retire(generation.number)
        for run_id in generation.finalizing:  # the finalizers have ended with the fork server
            self._heard(RunFinalized(run_id, ok=False), None)
        self.slots.vacate_unseen(generation.number)

    async def _watch_files(self) -> None:
        """Have changed flow files probed, and start another fork server if flows need further libraries."""
        while True:
            await asyncio.sleep(self._recheck_seconds)
            current = self.slots.fork_server
            if current is None or not self._warms:
                continue
            changed = self.files.to_probe()
            if changed:
                current.say(ProbeFlows(changed))
            elif self._renewing or time.monotonic() - current.started <= RENEW_SECONDS:
                continue
            elif self.files.worth_warming(current.libraries):
                log.info("flows need more libraries, starting another fork server")
                self._renewing = True
                self._renew.set()

    async def _kill_stopped(self) -> None:
        """Kill fork servers and slots that were stopped (SIGSTOP) and not continued."""
        seconds = self._assignment.lost_seconds
        stopped = Lasting[int](seconds=seconds)
        while True:
            await asyncio.sleep(seconds / 4)
            fork_servers = (generation.process.pid for generation in self._generations.values())
            pids = stopped.look(pid for pid in (*fork_servers, *self.slots.by_pid) if is_stopped(pid))
            if pids:
                log.warning("processes of the executor are stopped, killing them", pids=pids, seconds=seconds)
                kill_all(pids)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Attend to one connection of a slot or fork server, and close it."""
        handler = asyncio.current_task()
        if handler is not None:
            self._handlers.add(handler)
            handler.add_done_callback(self._handlers.discard)
        try:
            # No other code awaits this task; asyncio would log the error.
            with contextlib.suppress(asyncio.CancelledError):
                await self._attend(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Receive the messages of a connection until it ends; its first one says whether it is a slot's."""
        slot: SlotState | None = None
        with contextlib.suppress(OSError, ValueError, KeyError):
            async for line in reader:
                message = from_line(line)
                if isinstance(message, SlotReady):
                    slot = SlotState(message, writer)
                    if self._options is not None:
                        say(writer, self._options)
                    self.slots.add(slot)
                elif slot is not None:
                    self._hear_slot(slot, message)
                else:
                    self._hear_fork_server(message, writer)
        if slot is not None:
            self._gone(slot)

    def _hear_fork_server(self, message: ProcessMessage, writer: asyncio.StreamWriter) -> None:
        """Note a message of a fork server: it is ready, has import findings, or one of its processes has ended."""
        match message:
            case ForkServerReady(generation=number):
                if number in self._generations:
                    self._welcome(self._generations[number], message, writer)
            case ImportFindings():
                self._note(message)
            case RunFinalized():
                for generation in self._generations.values():
                    generation.finalizing.discard(message.run_id)
                self._heard(message, None)
            case SlotEnded():
                if message.status and not self._stopping:
                    log.warning("a slot died", slot=message.number, how=describe_exit(message.status))
                self.slots.vacate(message.number, message.generation)
            case _:
                pass

    def _hear_slot(self, slot: SlotState, message: ProcessMessage) -> None:
        """Note what a slot's run does; a run that waits may make room for another slot."""
        match message:
            case RunBegan():
                self.slots.began(slot, message)
            case RunPaused(paused=paused):
                slot.waiting = paused
                self._hand_back_if_waiting(slot)
                self.slots.adapt()
            case SlotIdle():
                self.slots.ended(slot)
            case _:
                pass
        self._heard(message, slot.run)

    def _welcome(self, generation: ForkServerHandle, ready: ForkServerReady, writer: asyncio.StreamWriter) -> None:
        """Make a fork server that is ready the present one; the previous one starts no more slots and ends."""
        generation.writer = writer
        generation.libraries = frozenset(ready.libraries)
        log.info("slots are ready", generation=generation.number, libraries=len(generation.libraries))
        self._renewing = False
        if self._stopping:
            generation.say(Stop())
            return
        previous, self.slots.fork_server = self.slots.fork_server, generation
        if previous is not None:
            previous.retired = True
            previous.say(Stop())
            self.slots.retire(previous.number)
        self.slots.adapt()

    def _hand_back_if_waiting(self, slot: SlotState) -> None:
        if self._stopping and slot.waiting:
            say(slot.writer, HandBack(HAND_BACK_SECONDS))

    def _gone(self, slot: SlotState) -> None:
        self.slots.by_pid.pop(slot.process.pid, None)
        if slot.process.generation not in self._generations:  # otherwise the fork server reports its end
            self.slots.vacate(slot.process.number, slot.process.generation)
        if slot.run is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(slot.run.pid, signal.SIGKILL)
            self._orphaned(slot.run)

    def _note(self, findings: ImportFindings) -> None:
        news = self.files.note(findings)
        if news:
            log.warning("a flow does not import", flow=str(findings.source), problem=news)
        elif news is not None:
            log.info("a flow imports again", flow=str(findings.source))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
