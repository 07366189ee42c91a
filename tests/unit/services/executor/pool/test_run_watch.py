"""What a slot makes of the reports of its run's process, and of the states that others set."""

import os
from datetime import datetime

import pytest

from services.executor.messages import (
    FlowStarted,
    NotClaimed,
    ProcessFailed,
    ProcessMessage,
    RunClaimed,
    RunFinished,
    RunOvertaken,
    SettingState,
    StateSet,
)
from services.executor.pipes import Link, PipeLines, to_line
from services.executor.pool import run_watch
from services.executor.pool.run_process import RunProcess
from services.executor.pool.run_watch import RunWatch
from services.executor.process_exits import EndReason, RunEnd

CLAIMED = RunClaimed(1.0, datetime.fromisoformat("2026-11-30T10:00:20+00:00"))
BEFORE, AFTER = (datetime.fromisoformat(f"2026-11-30T10:00:{second}+00:00") for second in (15, 21))


class Stopped(RunWatch):
    """Records how the process is stopped; there is none."""

    def stop(self, end: RunEnd, intent: str, *, within: float | None = None) -> None:
        self.end, self.intent = end, intent


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Stopped:
    monkeypatch.setattr(run_watch, "OWN_SECONDS", 0.0)
    reports, said = os.pipe()
    os.set_blocking(reports, False)
    process = RunProcess("run", os.getpid(), PipeLines(reports), said)
    return Stopped(process, Link(""), grace_seconds=1.0)


def report(watch: Stopped, *messages: ProcessMessage) -> None:
    for message in messages:
        os.write(watch.process.orders, to_line(message))
    watch.step()


def set_by_somebody(watch: Stopped, at: datetime, state_id: str | None = "late") -> None:
    watch.obey(RunOvertaken("run", state_id, at, "now Late", "reschedule"))


def test_what_happens_before_the_process_has_claimed_the_run_does_not_end_it(watch):
    """Prefect marks a run as late while its process is starting; the claim decides who gets it."""
    set_by_somebody(watch, BEFORE)
    watch.step()
    assert watch.end is None
    report(watch, CLAIMED)
    assert watch.end is None


def test_what_happens_after_the_claim_ends_it(watch):
    report(watch, CLAIMED, SettingState())
    set_by_somebody(watch, AFTER)
    watch.step()
    assert watch.end is None, "the state may be the one that the process is setting"
    report(watch, StateSet("another"))
    assert (watch.end, watch.intent) == (RunEnd(EndReason.OVERTAKEN, "now Late"), "reschedule")


def test_a_state_that_the_process_set_itself_does_not_end_it(watch):
    report(watch, CLAIMED, SettingState(), StateSet("late"))
    set_by_somebody(watch, AFTER)
    watch.step()
    assert watch.end is None


def test_a_run_that_was_deleted_is_ended_whatever_the_clocks_show(watch):
    report(watch, CLAIMED)
    set_by_somebody(watch, BEFORE, state_id=None)
    watch.step()
    assert watch.end == RunEnd(EndReason.OVERTAKEN, "now Late")


def test_the_order_about_another_run_is_ignored(watch):
    report(watch, CLAIMED)
    watch.obey(RunOvertaken("another", "late", AFTER, "now Late", "reschedule"))
    watch.step()
    assert watch.end is None


@pytest.mark.parametrize(
    ("messages", "status", "step", "reason"),
    [
        ((CLAIMED, RunFinished()), 0, "finished", None),
        ((CLAIMED,), 9, "crashed", EndReason.CRASHED),
        ((CLAIMED, RunFinished()), 9, "crashed", EndReason.CRASHED),
        ((CLAIMED, ProcessFailed("why")), 0, "crashed", EndReason.CRASHED),
        ((CLAIMED, ProcessFailed("why", unreachable=True)), 0, "handed-back", EndReason.HANDED_BACK),
        ((ProcessFailed("why", unreachable=True),), 0, "handed-back", EndReason.HANDED_BACK),
        ((CLAIMED, FlowStarted(2.0), ProcessFailed("why", unreachable=True)), 0, "crashed", EndReason.CRASHED),
        ((NotClaimed("it runs elsewhere"),), 0, "gone", None),
        ((NotClaimed("later", until=1.0),), 0, "early", None),
    ],
)
def test_the_reports_and_the_exit_decide_what_became_of_the_run(watch, messages, status, step, reason):
    report(watch, *messages)
    watch.process.status = status
    assert watch.outcome().step == step
    assert (watch.end.reason if watch.end else None) == reason


def test_a_sentence_of_the_process_is_the_cause(watch):
    report(watch, CLAIMED, ProcessFailed("no module named x"))
    watch.process.status = 0
    assert "no module named x" in (watch.outcome().why or "")
