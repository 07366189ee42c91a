"""The slots of the process pool: which there are, which runs they have, and how many are wanted.

Each slot has a number, from 0 to the number of slots less one. A number belongs to one generation from the request for
its slot until that slot has ended, so that two slots never have the same number: a new generation gets numbers as the
slots of the old one end.

An idle slot holds ten megabytes. So there is one of them, which takes the next run at once, and with each run that
begins more are requested, up to the number that the settings name; what a burst leaves idle ends when it has rested.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from events.errors import SluiceError
from services.executor.job_enqueuer import JobEnqueuer
from services.executor.messages import ProcessMessage, RunBegan, SlotReady, StartSlot, Stop
from services.executor.pool.fork_server_handle import ForkServerHandle, say

RESTART_SECONDS: Final = 1.0
"""Shortest time between two requests for a slot of one number."""
REST_SECONDS: Final = 60.0
"""How long slots stay that no run has needed."""


@dataclass
class SlotState:
    """A slot's process, and the run that it executes."""

    process: SlotReady
    writer: asyncio.StreamWriter
    run: RunBegan | None = None
    waiting: bool = False
    """Whether the run is paused, so that its slot does not count as working."""
    leaving: bool = False
    """Whether the slot was sent to end after its present run."""
    idle_since: float = field(default_factory=time.monotonic)


class Slots:
    """Requests slots from the current fork server and ends those that are too many."""

    def __init__(self, *, working: int, waiting: int, enqueuer: JobEnqueuer) -> None:
        """``working`` slots, and one for each paused run up to ``waiting``."""
        self._working = working
        self._most_waiting = waiting
        self._enqueuer = enqueuer
        self._owners: dict[int, int] = {}
        """The generation that a number belongs to."""
        self._asked: dict[int, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._rest: asyncio.TimerHandle | None = None
        self.by_pid: dict[int, SlotState] = {}
        self.fork_server: ForkServerHandle | None = None
        """Where slots are requested."""

    @property
    def running(self) -> dict[str, SlotState]:
        """The slots that execute a run, by the run's id."""
        return {slot.run.run_id: slot for slot in self.by_pid.values() if slot.run is not None}

    @property
    def waiting(self) -> int:
        """Number of slots whose run is paused."""
        return sum(slot.waiting for slot in self.by_pid.values())

    @property
    def most(self) -> int:
        """Number of slots that there may be: one more for every paused run, up to the limit."""
        return self._working + min(self.waiting, self._most_waiting)

    @property
    def wanted(self) -> int:
        """Number of slots wanted: one to spare, and one more for each that has a run, so that bursts find enough."""
        return min(self.most, 2 * len(self.running) + 1)

    def add(self, slot: SlotState) -> None:
        """Take in a slot that is ready."""
        self.by_pid[slot.process.pid] = slot
        if self.fork_server is None or slot.process.generation != self.fork_server.number:
            self._stop(slot)
        else:
            self.adapt()  # the paused run for which the slot was requested may have gone on
            self._adapt_later()

    def tell_all(self, message: ProcessMessage) -> None:
        """Send a message to every slot."""
        for slot in self.by_pid.values():
            say(slot.writer, message)

    def began(self, slot: SlotState, run: RunBegan) -> None:
        """The slot has a run."""
        slot.run = run
        self.adapt()

    def ended(self, slot: SlotState) -> None:
        """The slot is idle."""
        slot.run = None
        slot.waiting = False
        slot.idle_since = time.monotonic()
        self.adapt()
        self._adapt_later()

    def adapt(self) -> None:
        """Request the slots that are missing, and end idle ones that are too many, or have rested."""
        if self.fork_server is None:
            return
        missing = self.wanted - len(self._owners)
        numbers = range(len(self._owners) + max(missing, 0))
        for number in itertools.filterfalse(self._owners.__contains__, numbers):
            self._request(number)
        staying = [slot for slot in self.by_pid.values() if not slot.leaving]
        idle = sorted((slot for slot in staying if slot.run is None), key=lambda slot: -slot.process.number)
        rested = time.monotonic() - REST_SECONDS
        for slot in idle:
            too_many = len(staying) > self.most
            if too_many or (len(staying) > self.wanted and slot.idle_since <= rested):
                staying.remove(slot)
                self._stop(slot)

    def retire(self, generation: int) -> None:
        """Have the slots of a generation end after their present runs."""
        for slot in self.by_pid.values():
            if slot.process.generation == generation:
                self._stop(slot)

    def vacate(self, number: int, generation: int) -> None:
        """Free the number of a slot that has ended, and request another, at most once a second."""
        if self._owners.get(number) == generation:
            del self._owners[number]
            self._spawn(self._request_later(number))

    def vacate_unseen(self, generation: int) -> None:
        """Free the numbers of the slots that an ended fork server was to start and that never came."""
        seen = {slot.process.number for slot in self.by_pid.values() if slot.process.generation == generation}
        for number, owner in list(self._owners.items()):
            if owner == generation and number not in seen:
                self.vacate(number, owner)

    async def gone(self, within_seconds: float) -> None:
        """Wait until no slot is left, at most that long."""
        deadline = time.monotonic() + within_seconds
        while self.by_pid and time.monotonic() < deadline:  # noqa: ASYNC110 - ends within seconds
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """End what is under way."""
        if self._rest is not None:
            self._rest.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _request(self, number: int) -> None:
        if self.fork_server is not None and number not in self._owners and len(self._owners) < self.wanted:
            self._owners[number] = self.fork_server.number
            self._asked[number] = time.monotonic()
            self.fork_server.say(StartSlot(number))

    async def _request_later(self, number: int) -> None:
        await asyncio.sleep(self._asked.get(number, 0.0) + RESTART_SECONDS - time.monotonic())
        self._request(number)

    def _adapt_later(self) -> None:
        """Adapt when all slots that are idle now have rested; with runs that begin and end it happens anyway."""
        if self._rest is not None:
            self._rest.cancel()
        # A tenth of a second more than the rest, because timers may fire a little early.
        self._rest = asyncio.get_running_loop().call_later(REST_SECONDS + 0.1, self.adapt)

    def _stop(self, slot: SlotState) -> None:
        slot.leaving = True
        say(slot.writer, Stop())
        self._spawn(self._unblock(slot))

    async def _unblock(self, slot: SlotState) -> None:
        """Wake the slot, which may be waiting for its next job."""
        with contextlib.suppress(SluiceError):
            await self._enqueuer.unblock(slot.process.client)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
