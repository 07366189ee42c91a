"""The handle of a run's process: what it has reported, what it is told, and how its end is known."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.executor.messages import (
    ExecuteRun,
    FinalizeRun,
    FlowStarted,
    RunFinished,
    RunPaused,
    SettingState,
    StateSet,
    SuspendRun,
    TakeIntent,
)
from services.executor.pipes import PipeLines, from_line
from services.executor.pool.run_process import RunProcess, command
from services.executor.process_exits import EndReason, RunEnd
from tests.unit.services.executor.making import NOBODY, Piped


@pytest.fixture
def process() -> Iterator[Piped]:
    made = Piped("run")
    yield made
    made.leave()


def test_reports_come_in_order_and_the_last_of_each_kind_is_kept(process: Piped) -> None:
    process.says(RunPaused(True), FlowStarted(1.0), RunPaused(False))
    assert process.hear() == [RunPaused(True), FlowStarted(1.0), RunPaused(False)]
    assert process.hear() == []
    assert process.last(RunPaused) == RunPaused(False)
    assert process.last(FlowStarted) == FlowStarted(1.0)
    assert process.last(RunFinished) is None


def test_states_that_the_process_sets_are_its_own_even_without_an_answer(process: Piped) -> None:
    process.says(SettingState(), StateSet("s1"), SettingState())
    process.hear()
    assert (process.own_states, process.setting_states) == ({"s1"}, 1)
    process.says(StateSet(None))
    process.hear()
    assert (process.own_states, process.setting_states) == ({"s1", None}, 0)


def test_orders_arrive_and_one_to_a_process_that_is_gone_is_dropped(process: Piped) -> None:
    suspend = SuspendRun("run", "s1", datetime.now(UTC))
    process.tell(suspend)
    process.tell(TakeIntent("cancel"))
    assert process.told() == [suspend, TakeIntent("cancel")]
    os.close(process._orders)
    process.tell(TakeIntent("cancel"))
    process._orders = os.open(os.devnull, os.O_RDONLY)


def test_the_end_is_waited_for_with_the_last_reports(process: Piped) -> None:
    process.says(FlowStarted(1.0))
    assert not process.wait_for_end(within_seconds=0.0)
    process.says(RunFinished())
    process.ends()
    assert process.wait_for_end(within_seconds=60)
    assert process.last(RunFinished) is not None


def test_a_process_that_somebody_else_has_reaped_has_ended() -> None:
    reports, orders = os.pipe()
    process = RunProcess("run", NOBODY, PipeLines(reports), orders)
    assert process.reap()
    assert process.status == 0
    process.kill()
    process.terminate()
    assert process.memory_mb() == 0
    process.close()


@pytest.mark.parametrize(
    "instruction", [ExecuteRun("run", "me"), FinalizeRun("run", RunEnd(EndReason.CRASHED, "why\n\udcff"))]
)
def test_a_fresh_interpreter_is_told_its_instruction_whole(instruction: ExecuteRun | FinalizeRun) -> None:
    *_, module, reports, orders, shelf, told = command(instruction, 3, 4, Path("/shelf"))
    assert (module, reports, orders, shelf) == ("services.executor.pool.spawned_process", "3", "4", "/shelf")
    assert from_line(told.encode()) == instruction
    assert "\n" not in told
