"""What a slot does for its run while the role's process is down: sign of life, reading the run's state, giving up."""

from __future__ import annotations

import time
from dataclasses import KW_ONLY, dataclass
from typing import Final

import structlog

from events.errors import Backpressure, TransientError
from services.executor.messages import ObserveRun
from services.executor.pipes import Link
from services.executor.pool.run_process import RunProcess
from services.executor.pool.run_watch import UNREACHED, RunWatch
from services.executor.pool.starters import Start
from services.store.runs.executions import Execution, Executions

log = structlog.get_logger()

LIVE_SECONDS: Final = 2.0
OBSERVE_SECONDS: Final = 5.0
"""How often the slot reads its run in Prefect while the role's process is down."""


@dataclass(eq=False)
class RoleAbsence:
    """Stands in for the role's process during one run; `step` is called at least once a second.

    ``record`` is this slot's in the register of executions, if it has one; ``slot`` names the slot there.
    """

    watch: RunWatch
    _: KW_ONLY
    link: Link
    start: Start
    executions: Executions
    record: Execution | None
    slot: str
    lost_seconds: float

    def __post_init__(self) -> None:
        self._alone_seconds = max(self.lost_seconds, 3 * OBSERVE_SECONDS)
        """How long the run goes on while the role's process, Redis and Prefect are all out of reach."""
        self._reached_at = time.monotonic()
        """When the role's process, Redis or Prefect was last reached."""
        self._live_at = self._observe_at = 0.0
        self._observer: RunProcess | None = None

    def step(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self.link.alive:
            self._reached_at = now
            return
        if now >= self._live_at:
            self._live_at = now + LIVE_SECONDS
            self._give_sign_of_life(now)
        self._observe(now)
        if self.watch.end is None and now - self._reached_at >= self._alone_seconds:
            log.warning(
                "the role's process, redis and prefect are out of reach, the run is ended",
                run=self.watch.process.run_id,
                seconds=self._alone_seconds,
            )
            self.watch.stop(UNREACHED, "cancel")

    def _give_sign_of_life(self, now: float) -> None:
        """Renew a sign of life that is for this slot's run alone.

        One sign of life for all slots of the executor would hide that the slot of another run has died, too.
        """
        try:
            self.executions.live(self.slot)
            if self.record is not None and self.record.instance != self.slot:
                self.record = self.executions.take_over(self.record, self.slot) or self.record
        except (TransientError, Backpressure) as error:
            log.warning("the register of executions could not be written", error=str(error))
        else:
            self._reached_at = now

    def _observe(self, now: float) -> None:
        """Ask Prefect about the run from time to time, in a process of its own, while no role does it."""
        if self._observer is None:
            if now >= self._observe_at:
                self._observer = self.start(ObserveRun(self.watch.process.run_id))
                self._observe_at = now + OBSERVE_SECONDS
            return
        over = self._observer.reap()
        for order in self._observer.hear():
            self.watch.obey(order)
        if over:
            if self._observer.status == 0:
                self._reached_at = now
            self._observer.close()
            self._observer = None
        elif now >= self._observe_at:
            self._observer.kill()
