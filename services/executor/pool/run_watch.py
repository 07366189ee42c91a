"""What a slot does for its run while the run's process works: obeys orders, holds limits, and decides on its end."""

from __future__ import annotations

import select
import time
from dataclasses import dataclass
from typing import Final

from services.executor.messages import (
    CancelRun,
    CutOff,
    FlowStarted,
    HandBack,
    Intent,
    NotClaimed,
    ProcessFailed,
    ProcessMessage,
    RunClaimed,
    RunFinished,
    RunLimits,
    RunOvertaken,
    RunPaused,
    RunRefused,
    SuspendRun,
    TakeIntent,
)
from services.executor.pipes import Link
from services.executor.pool.run_process import RunProcess
from services.executor.process_exits import EndReason, RunEnd, describe_exit, oom_kill_count

ACK_SECONDS: Final = 1.0
"""How long a run process may take to confirm the meaning of the coming SIGTERM."""
OWN_SECONDS: Final = 2.0
"""How long the process may take to report that it set a state itself: Prefect may publish the state first."""
HANDED_BACK: Final = RunEnd(
    EndReason.HANDED_BACK,
    "The executor was stopped; the run goes on as soon as one is there, or waits on until it is answered.",
)
UNREACHED: Final = RunEnd(
    EndReason.LOST,
    "Neither Redis nor Prefect could be reached for so long that another executor takes the run for lost.",
)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What became of a run, for RQ: ``step`` is ``gone``, ``early``, ``refused``, ``finished`` or an `EndReason`."""

    step: str
    why: str | None = None
    died: bool = False
    """Whether the process ended by itself before the flow had ended."""


class RunWatch:
    """One run process, from its start to its end; `step` is called whenever something may have happened."""

    def __init__(self, run_process: RunProcess, link: Link, *, grace_seconds: float) -> None:
        self.process = run_process
        self.end: RunEnd | None = None
        """How the run ends, once that was decided from outside the process, or because the process died."""
        self._link = link
        self._grace_seconds = grace_seconds
        self._kill_at: float | None = None
        self._overtaken: list[tuple[float, RunOvertaken]] = []
        self._oom_kills = oom_kill_count()

    def step(self) -> None:
        """Read the process's reports, and end the process if it is to end."""
        for report in self.process.hear():
            if isinstance(report, FlowStarted | RunPaused):
                self._link.send(report)
        if self.end is None:
            self._check_limits()
        if self.end is None:
            self._check_states()
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self.process.kill()
            self._kill_at = None

    def obey(self, message: ProcessMessage) -> None:
        """Execute an order about this run; other messages are ignored."""
        run_id = self.process.run_id
        match message:
            case CancelRun(run_id=of) if of == run_id and self.end is None:
                self.stop(RunEnd(EndReason.CANCELLED, "The run was cancelled."), "cancel")
            case SuspendRun(run_id=of) if of == run_id:
                self.process.tell(message)
            case RunOvertaken(run_id=of) if of == run_id:
                own = 0.0 if message.state_id is None else OWN_SECONDS
                self._overtaken.append((time.monotonic() + own, message))
            case HandBack(seconds=seconds) if self.end is None:
                self.stop(HANDED_BACK, "reschedule", within=seconds)
            case CutOff(seconds=seconds) if self.end is None and self._restarts:
                self.stop(UNREACHED, "cancel", within=seconds)
            case _:
                pass

    def stop(self, end: RunEnd, intent: Intent, *, within: float | None = None) -> None:
        """End the process: tell it the intent, send SIGTERM, and SIGKILL after the grace period.

        Without its confirmation of the intent, a SIGTERM would make it report a crash: then it is killed at once.
        """
        self.end = end
        self.process.tell(TakeIntent(intent))
        deadline = time.monotonic() + ACK_SECONDS
        reports = self.process.reports
        while self.process.last(TakeIntent) is None and time.monotonic() < deadline and not self.process.reap():
            select.select([] if reports.ended else [reports.descriptor], [], [], 0.05)
            self.process.hear()
        if self.process.last(TakeIntent) is None:
            self._kill_at = time.monotonic()
            return
        self.process.terminate()
        self._kill_at = time.monotonic() + (self._grace_seconds if within is None else within)

    def outcome(self) -> RunOutcome:
        """Return what became of the run, once the process has ended; decides the `end` of one that died."""
        process = self.process
        not_claimed, refused = process.last(NotClaimed), process.last(RunRefused)
        if not_claimed is not None:
            return RunOutcome("gone" if not_claimed.until is None else "early", not_claimed.why)
        if refused is not None:
            return RunOutcome("refused", refused.why)
        if self.end is not None:
            return RunOutcome(self.end.reason, self.end.message)
        if process.last(RunFinished) is not None and process.status == 0:
            return RunOutcome("finished")
        failed = process.last(ProcessFailed)
        if failed is not None and failed.unreachable and process.last(FlowStarted) is None:
            why = f"Prefect could not be reached before the flow began ({failed.why}); the run starts again."
            self.end = RunEnd(EndReason.HANDED_BACK, why)
            return RunOutcome(self.end.reason, why)
        if failed is not None:
            why = f"The process of the run could not execute it: {failed.why}"
        else:
            why = describe_exit(process.status or 0, oom_kills=oom_kill_count() - self._oom_kills)
        self.end = RunEnd(EndReason.CRASHED, why)
        return RunOutcome(self.end.reason, why, died=True)

    @property
    def _restarts(self) -> bool:
        limits = self.process.last(RunLimits)
        return limits is not None and limits.restarts

    def _check_limits(self) -> None:
        """Stop the run if it exceeds the time or memory that its deployment allows."""
        limits = self.process.last(RunLimits)
        if limits is None:
            return
        if limits.seconds and time.monotonic() - self.process.started > limits.seconds:
            message = f"after its time limit of {limits.seconds:g} s (job variable sluice_time_seconds)"
            self.stop(RunEnd(EndReason.TIMED_OUT, f"The run was stopped {message}."), "cancel")
        elif limits.memory_mb and self.process.memory_mb() > limits.memory_mb:
            message = f"it used more than its {limits.memory_mb:g} MiB of memory (sluice_memory_mb)"
            self.stop(RunEnd(EndReason.CRASHED, f"The run was stopped: {message}."), "cancel")

    def _check_states(self) -> None:
        """Stop the process if somebody else has set a state in which the run needs none.

        Before the claim, Prefect itself decides whether the process gets the run. While the process is setting a state,
        the state that was published may be its own.
        """
        claimed = self.process.last(RunClaimed)
        if not self._overtaken or claimed is None or self.process.setting_states > 0:
            return
        for certain_at, change in list(self._overtaken):
            # A run that was deleted has no state, and its moment is on this machine's clock.
            is_past = change.state_id is not None and change.occurred <= claimed.since
            is_own = change.state_id is not None and change.state_id in self.process.own_states
            if is_past or is_own:
                self._overtaken.remove((certain_at, change))
            elif time.monotonic() >= certain_at:
                self.stop(RunEnd(EndReason.OVERTAKEN, change.why), change.intent)
                return
