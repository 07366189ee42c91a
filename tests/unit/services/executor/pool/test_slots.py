"""Which slots are asked for, which ones end, and who owns a number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
import pytest_asyncio

from events.errors import TransientError
from services.executor.job_enqueuer import JobEnqueuer
from services.executor.messages import ProcessMessage, RunBegan, SlotReady, StartSlot, Stop
from services.executor.pipes import from_line
from services.executor.pool import slots as slots_module
from services.executor.pool.fork_server_handle import ForkServerHandle
from services.executor.pool.slots import Slots, SlotState
from tests.support.waiting import eventually


class Line:
    """Takes the place of a connection to a process."""

    def __init__(self) -> None:
        self.said: list[ProcessMessage] = []

    def is_closing(self) -> bool:
        return False

    def write(self, line: bytes) -> None:
        self.said.append(from_line(line))


class Queues:
    """Takes the place of the queues of jobs, in a Redis that may be ``away``."""

    def __init__(self) -> None:
        self.away = False
        self.woken: list[int] = []

    async def unblock(self, client: int) -> None:
        self.woken.append(client)
        if self.away:
            raise TransientError("out of reach")


class Pool:
    """Slots with ``working`` and ``waiting`` places, and what was said to whom."""

    def __init__(self, working: int, waiting: int) -> None:
        self.queues = Queues()
        self.slots = Slots(working=working, waiting=waiting, enqueuer=cast(JobEnqueuer, self.queues))
        self.fork_servers: dict[int, Line] = {}

    def renew(self, generation: int) -> None:
        """Another fork server is the current one."""
        handle = ForkServerHandle(generation, cast(asyncio.subprocess.Process, None))
        line = self.fork_servers[generation] = Line()
        handle.writer = cast(asyncio.StreamWriter, line)
        self.slots.fork_server = handle
        self.slots.adapt()

    def asked(self, generation: int) -> list[int]:
        """The numbers that were asked of a fork server."""
        return [message.number for message in self.fork_servers[generation].said if isinstance(message, StartSlot)]

    def come(self, number: int, generation: int = 1) -> SlotState:
        """A slot that was asked for is ready."""
        pid = 100 * generation + number
        slot = SlotState(SlotReady(number, generation, pid, client=pid), cast(asyncio.StreamWriter, Line()))
        self.slots.add(slot)
        return slot

    def both(self) -> list[SlotState]:
        """Two slots of the first generation; the first has a run."""
        first = self.come(0)
        self.slots.began(first, RunBegan("run", pid=1, at=0.0, queued=0.0))
        return [first, self.come(1)]

    def go(self, slot: SlotState) -> None:
        """A slot has ended."""
        del self.slots.by_pid[slot.process.pid]
        self.slots.vacate(slot.process.number, slot.process.generation)


def told(slot: SlotState) -> list[ProcessMessage]:
    return cast(Line, slot.writer).said


def begin(slot: SlotState, run_id: str = "run") -> None:
    slot.run = RunBegan(run_id, pid=1, at=0.0, queued=0.0)


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[Pool]:
    made = Pool(working=2, waiting=1)
    yield made
    await made.slots.close()


async def test_one_is_asked_for_and_more_with_each_run_up_to_the_limit_and_each_number_once(pool: Pool) -> None:
    pool.renew(1)
    assert pool.asked(1) == [0]
    pool.slots.adapt()
    first, second = pool.both()
    assert pool.asked(1) == [0, 1]
    pool.slots.began(second, RunBegan("another", pid=2, at=0.0, queued=0.0))
    pool.slots.ended(first)
    assert pool.asked(1) == [0, 1]


async def test_what_a_burst_leaves_idle_ends_when_it_has_rested(pool: Pool) -> None:
    pool.renew(1)
    first, second = pool.both()
    pool.slots.ended(first)
    pool.slots.adapt()
    assert not any(slot.leaving for slot in (first, second))
    second.idle_since -= slots_module.REST_SECONDS
    pool.slots.adapt()
    assert [slot.leaving for slot in (first, second)] == [False, True]
    first.idle_since -= slots_module.REST_SECONDS
    pool.go(second)
    pool.slots.adapt()
    assert not first.leaving, "one stays for the next run"


async def test_without_a_fork_server_none_is_asked_for_and_one_that_comes_ends(pool: Pool) -> None:
    pool.slots.adapt()
    slot = pool.come(0)
    assert slot.leaving
    assert told(slot) == [Stop()]


async def test_each_paused_run_makes_room_for_one_more_up_to_the_limit(pool: Pool) -> None:
    pool.renew(1)
    for slot in (pool.come(0), pool.come(1)):
        begin(slot)
        slot.waiting = True
        pool.slots.adapt()
    assert pool.slots.wanted == 3
    assert pool.asked(1) == [0, 1, 2]


async def test_when_a_paused_run_goes_on_an_idle_slot_of_the_highest_number_ends(pool: Pool) -> None:
    pool.renew(1)
    first, second = pool.come(0), pool.come(1)
    begin(first)
    first.waiting = True
    pool.slots.adapt()
    third = pool.come(2)
    first.waiting = False
    pool.slots.adapt()
    assert [slot.leaving for slot in (first, second, third)] == [False, False, True]
    await eventually(lambda: asyncio.sleep(0, pool.queues.woken == [third.process.client]))


async def test_a_slot_that_works_is_never_one_too_many(pool: Pool) -> None:
    pool.renew(1)
    begin(first := pool.come(0))
    first.waiting = True
    pool.slots.adapt()
    others = [pool.come(1), pool.come(2)]
    for number, slot in enumerate(others):
        begin(slot, f"run-{number}")
    first.waiting = False
    pool.slots.adapt()
    assert not any(slot.leaving for slot in (first, *others))
    assert set(pool.slots.running) == {"run", "run-0", "run-1"}


async def test_a_new_generation_gets_the_numbers_of_the_old_one_as_its_slots_end(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots_module, "RESTART_SECONDS", 0.0)
    pool.renew(1)
    old = pool.both()
    pool.renew(2)
    pool.slots.retire(1)
    assert [told(slot) for slot in old] == [[Stop()], [Stop()]]
    assert pool.asked(2) == []
    pool.go(old[1])
    await eventually(lambda: asyncio.sleep(0, pool.asked(2)), within_seconds=10)
    assert pool.asked(2) == [1]
    new = pool.come(1, generation=2)
    pool.slots.retire(1)
    assert told(new) == []


async def test_a_slot_that_is_wanted_no_more_is_not_asked_for_when_it_has_ended(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots_module, "RESTART_SECONDS", 0.0)
    pool.renew(1)
    begin(first := pool.come(0))
    first.waiting = True
    pool.slots.adapt()
    first.waiting = False
    pool.go(pool.come(2))
    await eventually(lambda: asyncio.sleep(0, not pool.slots._tasks))
    assert pool.asked(1) == [0, 1, 2]


async def test_the_end_of_an_old_slot_does_not_free_the_number_of_its_successor(pool: Pool) -> None:
    pool.renew(2)
    pool.slots.vacate(0, generation=1)
    pool.slots.adapt()
    assert pool.asked(2) == [0]


async def test_numbers_that_an_ended_fork_server_never_filled_are_asked_for_again(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots_module, "RESTART_SECONDS", 0.0)
    pool.renew(1)
    begin(pool.come(0))
    pool.slots.adapt()
    pool.renew(2)
    pool.slots.vacate_unseen(1)
    await eventually(lambda: asyncio.sleep(0, pool.asked(2)), within_seconds=10)
    assert pool.asked(2) == [1]


async def test_a_slot_ends_though_redis_cannot_be_asked_to_wake_it(pool: Pool) -> None:
    pool.queues.away = True
    pool.renew(1)
    slot = pool.come(0)
    pool.slots.retire(1)
    (waking,) = pool.slots._tasks
    await waking
    assert pool.queues.woken == [slot.process.client]
    assert told(slot) == [Stop()]


async def test_what_rests_ends_by_itself_and_nothing_is_left_after_the_close(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots_module, "REST_SECONDS", 0.05)
    pool.renew(1)
    first, second = pool.both()
    pool.slots.ended(first)
    await eventually(lambda: asyncio.sleep(0, second.leaving), within_seconds=10)
    assert not first.leaving
    pool.go(second)
    monkeypatch.setattr(slots_module, "REST_SECONDS", 0.0)
    pool.slots.ended(first)
    await pool.slots.close()
    assert pool.slots._rest is not None
    assert pool.slots._rest.cancelled()
