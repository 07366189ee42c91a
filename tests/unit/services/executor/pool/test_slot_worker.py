"""A slot's order of things: what is written before what, so that a slot that dies in between loses no run."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rq.registry import FailedJobRegistry, FinishedJobRegistry
from rq.serializers import JSONSerializer

from config.settings import RedisSettings
from events.errors import TransientError
from services.executor.messages import (
    ExecuteRun,
    FinalizeRun,
    FlowStarted,
    HandBack,
    Instruction,
    NotClaimed,
    OptionsRead,
    ProcessMessage,
    RunBegan,
    RunClaimed,
    RunFinished,
    SlotIdle,
    Stop,
)
from services.executor.pipes import Link, PipeLines, to_line
from services.executor.pool import slot_worker
from services.executor.pool.run_process import RunProcess
from services.executor.pool.run_watch import HANDED_BACK, RunWatch
from services.executor.pool.slot_worker import SlotWorker
from services.executor.process_exits import EndReason
from services.job_queues.job_gate import EXECUTE_RUN
from services.job_queues.queues import enqueue, queue
from services.job_queues.rq_keys import RUNS
from services.prefect_api.server_options import ServerOptions
from services.store.connection import SyncRedis, connect_sync
from services.store.runs.executions import Execution, Executions
from tests.unit.services.executor.making import Piped, assignment

RUN = "00000001-0000-4000-8000-000000000000"
STATE = "00000002-0000-4000-8000-000000000000"
OPTIONS = ServerOptions(csrf=False, result_storage=None, at=1.0)
NOW = datetime.now(UTC)
pytestmark = pytest.mark.usefixtures("redis")


class Bench:
    """A slot, the processes that it starts, and the role's end of its connection."""

    def __init__(self, redis: SyncRedis, folder: Path) -> None:
        self.redis = redis
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(folder / "s"))
        self.listening.listen()
        link = Link(str(folder / "s"))
        assert link.connect()
        self.role, _ = self.listening.accept()
        self.role.setblocking(False)
        self.heard = PipeLines(self.role.fileno())
        self.executions = Executions(redis, name="bench", alive_seconds=20)
        self.slot = SlotWorker(
            1, assignment(queues=(RUNS,)), redis=redis, link=link, executions=self.executions, prepared=None
        )
        self.link = link
        self.slot._start = self._start
        self.started: list[Instruction] = []
        self.processes: list[Piped] = []
        self.plan: list[tuple[ProcessMessage, ...]] = [(RunClaimed(1.0, NOW), FlowStarted(2.0), RunFinished())]
        self.finalizers: list[int] = []
        """The exit status of each finalizer, in order; 0 after the last."""
        self.register: list[tuple[str, list[Execution]]] = []

    def says(self, *messages: ProcessMessage) -> None:
        """The role's process says something."""
        for message in messages:
            self.role.sendall(to_line(message))

    def execute(self) -> None:
        """Queue the run's job and have the slot execute it."""
        runs = queue(RUNS, self.redis)
        assert enqueue(runs, EXECUTE_RUN, RUN, STATE, job_id=STATE, timeout_seconds=60)
        job = runs.fetch_job(STATE)
        assert job is not None
        self.slot.execute_job(job, runs)

    def close(self) -> None:
        for process in self.processes:
            process.leave()
        self.link.close()
        self.role.close()
        self.listening.close()
        for descriptor in (self.slot._wake_read, self.slot._wake_write):
            os.close(descriptor)

    def _start(self, instruction: Instruction) -> RunProcess:
        """Stands where a process is started: it has said all and ended by the time that it is looked at."""
        self.started.append(instruction)
        self.register.append((type(instruction).__name__, self.executions.all()))
        process = Piped(RUN)
        self.processes.append(process)
        if isinstance(instruction, FinalizeRun):
            process.ends(self.finalizers.pop(0) if self.finalizers else 0)
        else:
            process.says(*self.plan[0])
            process.looks = 1
            process.ends(0)
        return process


@pytest.fixture
def bench(valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(slot_worker, "show_as", lambda _: None)
    monkeypatch.setattr("services.executor.pool.slot_worker.time.sleep", lambda _: None)
    with connect_sync(valkey_url, RedisSettings()) as redis:
        made = Bench(redis, tmp_path)
        yield made
        made.close()


def _registry(bench: Bench, kind: Any) -> list[str]:
    return kind(RUNS, connection=bench.redis, serializer=JSONSerializer).get_job_ids()


def test_a_run_is_registered_before_it_starts_and_forgotten_when_it_is_over(bench: Bench) -> None:
    bench.execute()
    (instruction,) = bench.started
    assert isinstance(instruction, ExecuteRun)
    assert (instruction.run_id, instruction.instance) == (RUN, "me")
    assert instruction.queued is not None
    assert (instruction.queued.state_id, instruction.queued.free) == (STATE, True)
    assert [one.run_id for one in bench.register[0][1]] == [RUN]
    assert bench.executions.all() == []
    assert [type(message) for message in bench.heard.read()] == [RunBegan, FlowStarted, SlotIdle]
    assert _registry(bench, FinishedJobRegistry) == [STATE]


def test_the_job_tells_when_its_run_was_taken_claimed_and_begun(bench: Bench) -> None:
    bench.execute()
    job = queue(RUNS, bench.redis).fetch_job(STATE)
    assert job is not None
    result = job.return_value()
    assert (result["step"], result["claimed_at"], result["started_at"]) == ("finished", 1.0, 2.0)
    assert result["taken_at"] > 1.7e9


def test_a_run_that_another_slot_still_has_is_not_claimed_nor_settled(bench: Bench) -> None:
    other = Execution(RUN, "other", 1.0)
    bench.executions.begin(other)
    bench.plan = [(NotClaimed("it runs elsewhere"),)]
    bench.execute()
    (instruction,) = bench.started
    assert isinstance(instruction, ExecuteRun)
    assert instruction.queued is not None
    assert not instruction.queued.free
    assert bench.executions.all() == [other]
    assert [type(message) for message in bench.heard.read()] == [SlotIdle], "the other slot hears of its states"


def test_a_process_that_may_not_have_the_run_is_not_finalized_when_it_dies(bench: Bench) -> None:
    other = Execution(RUN, "other", 1.0)
    bench.executions.begin(other)
    bench.plan = [()]
    bench.execute()
    assert [type(one) for one in bench.started] == [ExecuteRun]
    assert bench.executions.all() == [other]


def test_where_the_register_cannot_be_written_the_run_is_not_claimed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Execution) -> None:
        raise TransientError("away")

    monkeypatch.setattr(bench.executions, "begin", away)
    bench.execute()
    (instruction,) = bench.started
    assert isinstance(instruction, ExecuteRun)
    assert instruction.queued is not None
    assert not instruction.queued.free


def test_a_process_that_dies_leaves_a_debt_until_its_run_is_finalized(bench: Bench) -> None:
    bench.plan = [(RunClaimed(1.0, NOW), FlowStarted(2.0))]
    bench.execute()
    _, finalize = bench.started
    assert isinstance(finalize, FinalizeRun)
    assert finalize.end.reason is EndReason.CRASHED
    (owed,) = bench.register[1][1]
    assert owed.ending == "crashed", "written before the finalizer began"
    assert bench.executions.all() == []
    assert _registry(bench, FailedJobRegistry) == [STATE]


def test_a_run_that_cannot_be_finalized_keeps_its_debt(bench: Bench) -> None:
    bench.plan = [(RunClaimed(1.0, NOW),)]
    bench.finalizers = [1, 9, 1]
    bench.execute()
    assert [type(one) for one in bench.started] == [ExecuteRun, *[FinalizeRun] * slot_worker.FINALIZER_TRIES]
    (owed,) = bench.executions.all()
    assert (owed.run_id, owed.instance, owed.ending) == (RUN, "me", "crashed")


def test_a_finalizer_that_fails_once_is_started_again(bench: Bench) -> None:
    bench.plan = [(RunClaimed(1.0, NOW),)]
    bench.finalizers = [1]
    bench.execute()
    assert len(bench.started) == 3
    assert bench.executions.all() == []


def test_a_run_that_was_taken_too_early_says_until_when(bench: Bench) -> None:
    bench.plan = [(NotClaimed("the run is not due", until=99.0),)]
    bench.execute()
    assert [message for message in bench.heard.read() if isinstance(message, SlotIdle)] == [SlotIdle(RUN, STATE, 99.0)]
    assert bench.executions.all() == []


def test_a_run_is_handed_back_in_the_register_before_its_process_is_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.executor.pool.run_watch.ACK_SECONDS", 0.0)
    bench.plan = [(RunClaimed(1.0, NOW),)]
    stops: list[list[Execution]] = []
    inner = RunWatch.stop

    def stop(self: Any, *args: Any, **options: Any) -> None:
        stops.append(bench.executions.all())
        inner(self, *args, **options)

    monkeypatch.setattr(RunWatch, "stop", stop)
    bench.says(HandBack(0.1))
    bench.execute()
    assert [[one.ending for one in held] for held in stops] == [[HANDED_BACK.reason]]
    finalize = bench.started[-1]
    assert isinstance(finalize, FinalizeRun)
    assert finalize.end.reason is EndReason.HANDED_BACK
    assert bench.slot._stop_requested, "and the slot ends"


def test_options_that_came_while_the_slot_waited_are_given_to_the_next_run(bench: Bench) -> None:
    bench.says(OptionsRead(OPTIONS))
    bench.slot._look_around()
    bench.execute()
    (instruction,) = bench.started
    assert isinstance(instruction, ExecuteRun)
    assert instruction.options == OPTIONS


def test_a_slot_ends_when_it_is_told_to_or_when_the_role_is_gone(bench: Bench) -> None:
    bench.slot._look_around()
    assert not bench.slot._stop_requested
    bench.says(Stop())
    bench.slot._look_around()
    assert bench.slot._stop_requested
    bench.slot._stop_requested = False
    bench.role.close()
    bench.slot._look_around()
    assert bench.slot._stop_requested


def test_a_run_goes_on_where_rqs_own_registers_are_garbage(bench: Bench) -> None:
    bench.redis.set(f"rq:wip:{RUNS}", "garbage")
    bench.execute()
    assert bench.executions.all() == []
    assert [type(message) for message in bench.heard.read()][-1] is SlotIdle
