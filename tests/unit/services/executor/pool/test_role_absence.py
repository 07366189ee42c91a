"""While the role's process is down, a slot keeps its run alive for others, obeys what Prefect says, and gives up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from config.settings import RedisSettings
from events.errors import TransientError
from services.executor.messages import CancelRun, Instruction, ObserveRun
from services.executor.pipes import Link
from services.executor.pool import role_absence
from services.executor.pool.role_absence import OBSERVE_SECONDS, RoleAbsence
from services.executor.pool.run_process import RunProcess
from services.executor.pool.run_watch import UNREACHED, RunWatch
from services.executor.process_exits import EndReason, RunEnd
from services.store.connection import SyncRedis, connect_sync
from services.store.runs.executions import Execution, Executions
from tests.unit.services.executor.making import Piped

RUN = "00000001-0000-4000-8000-000000000000"
pytestmark = pytest.mark.usefixtures("redis")


class Clock:
    """The time of the module under test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Stopped(RunWatch):
    """Notes how the run is ended; there is no process."""

    def stop(self, end: RunEnd, intent: str, *, within: float | None = None) -> None:
        self.end, self.intent = end, intent


class Connected(Link):
    """The connection to the role's process, which the test cuts."""

    up = False

    @property
    def alive(self) -> bool:
        return self.up


class Bench:
    def __init__(self, redis: SyncRedis, clock: Clock) -> None:
        self.clock = clock
        self.link = Connected("")
        self.observers: list[Piped] = []
        self.executions = Executions(redis, name="bench", alive_seconds=20)
        self.record = Execution(RUN, "me", 1.0)
        self.executions.begin(self.record)
        self.run = Piped(RUN)
        self.watch = Stopped(self.run, self.link, grace_seconds=1.0)
        self.absence = RoleAbsence(
            self.watch,
            link=self.link,
            start=self._start,
            executions=self.executions,
            record=self.record,
            slot="me/1",
            lost_seconds=20.0,
        )

    def step(self, after_seconds: float = 0.0) -> None:
        self.clock.now += after_seconds
        self.absence.step()

    def close(self) -> None:
        for process in (self.run, *self.observers):
            process.leave()

    def _start(self, instruction: Instruction) -> RunProcess:
        assert instruction == ObserveRun(RUN)
        self.observers.append(Piped(RUN))
        return self.observers[-1]


@pytest.fixture
def bench(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    clock = Clock()
    monkeypatch.setattr(role_absence, "time", clock)
    with connect_sync(valkey_url, RedisSettings()) as redis:
        made = Bench(redis, clock)
        yield made
        made.close()


def test_while_the_role_is_there_the_slot_does_nothing(bench: Bench) -> None:
    bench.link.up = True
    for _ in range(10):
        bench.step(after_seconds=10)
    assert (bench.observers, bench.watch.end) == ([], None)
    assert not bench.executions.lives("me/1")
    assert bench.executions.all() == [bench.record]


def test_the_slot_lives_under_a_name_of_its_own_and_has_the_run(bench: Bench) -> None:
    bench.step()
    assert bench.executions.lives("me/1")
    (held,) = bench.executions.all()
    assert (held.run_id, held.instance) == (RUN, "me/1")
    assert bench.absence.record == held, "by which the slot ends the record"


def test_a_run_that_another_executor_has_settled_is_not_taken_back(bench: Bench) -> None:
    bench.executions.end(bench.record)
    bench.step()
    assert bench.executions.all() == []
    assert bench.absence.record == bench.record


def test_what_prefect_says_of_the_run_is_obeyed(bench: Bench) -> None:
    bench.step()
    (observer,) = bench.observers
    observer.says(CancelRun(RUN))
    bench.step(after_seconds=1)
    assert bench.watch.end is not None
    assert bench.watch.end.reason is EndReason.CANCELLED


def test_one_observer_at_a_time_looks_at_intervals(bench: Bench) -> None:
    bench.step()
    bench.step(after_seconds=1)
    assert len(bench.observers) == 1
    bench.observers[0].ends()
    bench.step()
    bench.step()
    assert len(bench.observers) == 1, "not before the interval is over"
    bench.step(after_seconds=OBSERVE_SECONDS)
    assert len(bench.observers) == 2


def test_an_observer_that_hangs_is_killed(bench: Bench) -> None:
    bench.step()
    bench.step(after_seconds=OBSERVE_SECONDS + 1)
    assert bench.observers[0].killed


def _redis_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise TransientError("away")

    monkeypatch.setattr(bench.executions, "live", away)


def _prefect_answers(bench: Bench, status: int) -> None:
    for observer in bench.observers:
        if observer.status is None:
            observer.ends(status)


@pytest.mark.parametrize(("redis", "prefect"), [(True, False), (False, True)])
def test_a_run_that_is_still_known_to_somebody_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, redis: bool, prefect: bool
) -> None:
    if not redis:
        _redis_away(bench, monkeypatch)
    for _ in range(100):
        bench.step(after_seconds=1)
        _prefect_answers(bench, 0 if prefect else 1)
    assert bench.watch.end is None


def test_a_run_that_nobody_can_be_told_of_is_ended_before_another_one_starts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _redis_away(bench, monkeypatch)
    for _ in range(19):
        bench.step(after_seconds=1)
        _prefect_answers(bench, 1)
    assert bench.watch.end is None
    bench.step(after_seconds=1)
    assert (bench.watch.end, bench.watch.intent) == (UNREACHED, "cancel")
    bench.step(after_seconds=1)
    assert bench.watch.end is UNREACHED


def test_a_moment_without_redis_only_delays_the_sign_of_life(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[int] = []
    inner = bench.executions.take_over

    def take_over(*args: Execution) -> Execution | None:
        if not failed:
            failed.append(1)
            raise TransientError("away for a moment")
        return inner(*args)

    monkeypatch.setattr(bench.executions, "take_over", take_over)
    bench.step()
    assert bench.executions.all() == [bench.record]
    bench.step(after_seconds=role_absence.LIVE_SECONDS)
    assert [one.instance for one in bench.executions.all()] == ["me/1"]
