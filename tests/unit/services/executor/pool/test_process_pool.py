"""The process pool over its real socket: whom it hears, and what becomes of runs whose slot or fork server ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import pytest_asyncio

from events.errors import TransientError
from services.executor.job_enqueuer import JobEnqueuer
from services.executor.messages import (
    Assignment,
    CancelRun,
    FinalizeRun,
    FlowSource,
    ForkServerReady,
    HandBack,
    ImportFindings,
    OptionsRead,
    ProcessMessage,
    RunBegan,
    RunFinalized,
    RunPaused,
    SlotEnded,
    SlotIdle,
    SlotReady,
    StartSlot,
    Stop,
)
from services.executor.pipes import from_line, to_line
from services.executor.pool import process_pool
from services.executor.pool.fork_server_handle import ForkServerHandle
from services.executor.pool.process_pool import ProcessPool
from services.executor.pool.slots import Slots
from services.executor.process_exits import EndReason, RunEnd
from services.prefect_api.runs import StateChange
from services.prefect_api.server_options import ServerOptions
from tests.support.waiting import eventually
from tests.unit.services.executor.making import NOBODY, assignment

RUN = "00000001-0000-4000-8000-000000000000"
OPTIONS = ServerOptions(csrf=False, result_storage=None, at=1.0)


class Queues:
    """Takes the place of the queues of jobs."""

    async def unblock(self, _: int) -> None:
        raise TransientError("nobody is to be woken here")


class Process:
    """Takes the place of a fork server's process."""

    pid = NOBODY

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def wait(self) -> int:
        await self.over.wait()
        return 0

    def kill(self) -> None:
        self.over.set()


class Peer:
    """A process of the executor at the other end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def says(self, *messages: ProcessMessage) -> None:
        self._writer.writelines(to_line(message) for message in messages)

    def garbles(self) -> None:
        self._writer.write(b"NoSuchMessage {}\n")

    async def hears(self, kind: type[ProcessMessage]) -> Any:
        """The next message of the kind."""
        async with asyncio.timeout(30):
            while True:
                message = from_line(await self._reader.readline())
                if isinstance(message, kind):
                    return message

    async def hears_before(self, kind: type[ProcessMessage]) -> list[type[ProcessMessage]]:
        """The kinds of messages that come before one of this kind."""
        kinds: list[type[ProcessMessage]] = []
        async with asyncio.timeout(30):
            while kind not in kinds:
                kinds.append(type(from_line(await self._reader.readline())))
        return kinds

    async def goes(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class Bench:
    """A pool, the processes that it started, and what it told the executor."""

    def __init__(self) -> None:
        self.processes: dict[int, Process] = {}
        self.sources: dict[int, tuple[FlowSource, ...]] = {}
        self.heard: list[tuple[ProcessMessage, str | None]] = []
        self.orphans: list[str] = []
        self.peers: list[Peer] = []
        self.pool = ProcessPool(
            assignment(),
            slots=Slots(working=2, waiting=1, enqueuer=cast(JobEnqueuer, Queues())),
            heard=lambda message, run: self.heard.append((message, run.run_id if run else None)),
            orphaned=lambda run: self.orphans.append(run.run_id),
            recheck_seconds=0.01,
            process_template=None,
        )
        self.pool.set_sources([])

    async def start(self, given: Assignment, *, process_template: object) -> ForkServerHandle:
        """Stands where `ForkServerHandle.start` does."""
        del process_template
        process = self.processes[given.generation] = Process()
        self.sources[given.generation] = given.sources
        self.socket = given.socket
        return ForkServerHandle(given.generation, cast(asyncio.subprocess.Process, process))

    async def peer(self) -> Peer:
        peer = Peer(*await asyncio.open_unix_connection(self.socket))
        self.peers.append(peer)
        return peer

    async def fork_server(self, generation: int = 1, *libraries: str) -> Peer:
        await eventually(lambda: asyncio.sleep(0, generation in self.processes))
        peer = await self.peer()
        peer.says(ForkServerReady(generation, libraries))
        await eventually(lambda: asyncio.sleep(0, self._is_current(generation)))
        return peer

    async def slot(self, number: int = 0, generation: int = 1, run_id: str | None = None) -> Peer:
        peer = await self.peer()
        pid = NOBODY + number + 10 * generation
        peer.says(SlotReady(number, generation, pid, client=5))
        if run_id is not None:
            peer.says(RunBegan(run_id, NOBODY, 1.0, 0.5))
        await eventually(lambda: asyncio.sleep(0, pid in self.pool.slots.by_pid))
        await eventually(lambda: asyncio.sleep(0, run_id is None or run_id in self.pool.slots.running))
        return peer

    def _is_current(self, generation: int) -> bool:
        current = self.pool.slots.fork_server
        return current is not None and current.number == generation


@pytest_asyncio.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    made = Bench()
    monkeypatch.setattr(ForkServerHandle, "start", made.start)
    monkeypatch.setattr(process_pool, "RESTART_SECONDS", 0.0)
    monkeypatch.setattr("services.executor.pool.slots.RESTART_SECONDS", 0.0)
    monkeypatch.setattr(process_pool, "HAND_BACK_SECONDS", -1.5)
    running = asyncio.create_task(made.pool.run())
    yield made
    running.cancel()
    await asyncio.wait({running})
    for process in made.processes.values():
        process.over.set()
    await made.pool.end(finish_seconds=0)
    for peer in made.peers:
        await peer.goes()


async def test_a_fork_server_that_is_ready_is_asked_for_a_slot(bench: Bench) -> None:
    fork_server = await bench.fork_server()
    assert await fork_server.hears(StartSlot) == StartSlot(0)


async def test_every_slot_knows_the_servers_options_also_one_that_comes_later(bench: Bench) -> None:
    await bench.fork_server()
    first = await bench.slot(0)
    bench.pool.remember(OPTIONS)
    assert await first.hears(OptionsRead) == OptionsRead(OPTIONS)
    assert await (await bench.slot(1)).hears(OptionsRead) == OptionsRead(OPTIONS)


async def test_a_slot_has_its_run_until_it_says_that_it_is_idle(bench: Bench) -> None:
    await bench.fork_server()
    slot = await bench.slot(run_id=RUN)
    slot.says(RunPaused(True))
    await eventually(lambda: asyncio.sleep(0, bench.pool.slots.waiting))
    slot.says(SlotIdle(RUN, "s1"))
    await eventually(lambda: asyncio.sleep(0, not bench.pool.slots.running))
    assert bench.pool.slots.waiting == 0
    assert [(type(message), run) for message, run in bench.heard] == [
        (RunBegan, RUN), (RunPaused, RUN), (SlotIdle, None)
    ]  # fmt: skip


async def test_a_run_whose_slot_ends_is_killed_and_told_of(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda *args: killed.append(args))
    await bench.fork_server()
    slot = await bench.slot(run_id=RUN)
    await slot.goes()
    await eventually(lambda: asyncio.sleep(0, bench.orphans == [RUN]))
    assert killed == [(NOBODY, signal.SIGKILL)], "a process of its run must not go on beside the next one"
    assert bench.pool.slots.by_pid == {}


async def test_the_number_of_a_dead_slot_is_asked_for_again(bench: Bench) -> None:
    fork_server = await bench.fork_server()
    assert await fork_server.hears(StartSlot) == StartSlot(0)
    slot = await bench.slot(0)
    await slot.goes()
    fork_server.says(SlotEnded(0, 1, signal.SIGKILL))
    assert await fork_server.hears(StartSlot) == StartSlot(0)
    assert bench.orphans == [], "it had no run"


async def test_a_slot_that_speaks_nonsense_is_given_up_and_not_the_others(bench: Bench) -> None:
    await bench.fork_server()
    odd, other = await bench.slot(0, run_id=RUN), await bench.slot(1)
    odd.garbles()
    await eventually(lambda: asyncio.sleep(0, bench.orphans == [RUN]))
    bench.pool.remember(OPTIONS)
    assert await other.hears(OptionsRead) == OptionsRead(OPTIONS)


async def test_a_run_is_told_of_its_new_state_where_it_runs(bench: Bench) -> None:
    await bench.fork_server()
    slot = await bench.slot(run_id=RUN)
    now = datetime.now(UTC)
    for run_id, kind in (("elsewhere", "CANCELLING"), (RUN, "RUNNING"), (RUN, "CANCELLING")):
        bench.pool.tell(StateChange(run_id, "s1", kind, kind.title(), now))
    assert await slot.hears(CancelRun) == CancelRun(RUN)


async def test_a_run_is_finalized_by_the_fork_server_that_there_is(bench: Bench) -> None:
    instruction = FinalizeRun(RUN, RunEnd(EndReason.LOST, "its slot died"))
    assert not bench.pool.finalize(instruction), "there is none yet"
    fork_server = await bench.fork_server()
    assert bench.pool.finalize(instruction)
    assert await fork_server.hears(FinalizeRun) == instruction
    fork_server.says(RunFinalized(RUN, ok=True))
    await eventually(lambda: asyncio.sleep(0, bench.heard))
    assert bench.heard == [(RunFinalized(RUN, ok=True), None)]


async def test_what_a_dead_fork_server_had_to_finalize_is_not_taken_for_done(bench: Bench) -> None:
    await bench.fork_server()
    bench.pool.finalize(FinalizeRun(RUN, RunEnd(EndReason.LOST, "its slot died")))
    bench.processes[1].over.set()
    await eventually(lambda: asyncio.sleep(0, bench.heard))
    assert bench.heard == [(RunFinalized(RUN, ok=False), None)]
    await bench.fork_server(2)


async def test_the_slots_of_a_dead_fork_server_end_after_their_runs(bench: Bench) -> None:
    await bench.fork_server()
    slot = await bench.slot(run_id=RUN)
    bench.processes[1].over.set()
    assert await slot.hears(Stop) == Stop()
    assert bench.orphans == [], "its run goes on"
    fork_server = await bench.fork_server(2)
    assert await fork_server.hears(StartSlot) != StartSlot(0), "the number is taken until the old slot has ended"


async def test_a_fork_server_without_the_flows_libraries_is_replaced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "RENEW_SECONDS", 0.0)
    first = await bench.fork_server(1)
    source = FlowSource("/p", "a.py:f")
    bench.pool.set_sources([source])
    first.says(ImportFindings(source, None, ("/p/a.py",), ("pandas",), 1.0))
    await bench.fork_server(2, "pandas")
    assert bench.sources[2] == (source,)
    assert await first.hears(Stop) == Stop()


async def test_at_the_end_a_run_that_waits_is_handed_back_at_once(bench: Bench) -> None:
    fork_server = await bench.fork_server()
    waits = await bench.slot(0, run_id=RUN)
    waits.says(RunPaused(True))
    await eventually(lambda: asyncio.sleep(0, bench.pool.slots.waiting))
    works = await bench.slot(1, run_id="works")
    ending = asyncio.create_task(bench.pool.end(finish_seconds=60))
    assert await fork_server.hears(Stop) == Stop()
    await waits.hears(HandBack)
    bench.pool.remember(OPTIONS)
    assert HandBack not in await works.hears_before(OptionsRead), "a run that works has its time"
    assert not ending.done()
    works.says(RunPaused(True))
    await works.hears(HandBack)
    for slot in (waits, works):
        await slot.goes()
    bench.processes[1].over.set()
    await ending


async def test_all_slots_held_by_waiting_runs_block_the_pool(bench: Bench) -> None:
    await bench.fork_server()
    for number in range(3):
        slot = await bench.slot(number, run_id=f"run-{number}")
        assert not bench.pool.blocked
        slot.says(RunPaused(True))
        await eventually(lambda number=number: asyncio.sleep(0, bench.pool.slots.waiting == number + 1))
    assert bench.pool.blocked
