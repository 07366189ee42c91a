"""Decides what to do with a signal for a run, from the states of run and signal. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise
from typing import Any, Literal

from events.signal import Outcome, ResumeSignal
from services.prefect_api.run_view import RunView, Stay
from services.prefect_api.runs import FINAL_TYPES
from services.store.signals.signal_record import RECEIVED, Mark, SignalRecord
from sluice.protocol import GAVE_UP, opened


class DecisionStep(Enum):
    """The next step for one signal and one run."""

    APPLY = auto()
    SKIP = auto()
    """Nothing remains to be done."""
    KEEP = auto()
    """The signal is early: the run does not wait."""
    LOOK_BACK = auto()
    """The run is not in the wait that the signal was sent to, if any: its state history decides."""
    RESOLVE = auto()
    """A resumer began to apply the signal and did not record the result: the run's state history decides."""


@dataclass(frozen=True, slots=True)
class SignalDecision:
    """An outcome with its reason."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """What ended a wait, by evidence: for a wait of Sluice a run input, for Prefect's own pause the next state."""

    how: Literal["answered", "rejected", "timed out"]
    signal: str | None = None
    """The id of the signal that ended the wait; None where it was none, or is unknown after Prefect's own pause."""
    key: str | None = None
    """The key that was answered, of several."""
    value: Mapping[str, Any] | None = None


def end_of(stay: Stay, after: Stay, inputs: Mapping[str, Any]) -> End | None:
    """Return what ended the wait of ``stay``; None if it was left without an answer and is open.

    ``inputs`` holds those of the stay's run inputs that are `Stay.evidence`. A rejection or time-out counts until the
    run ends: a retry of the run asks again.
    """
    if not stay.ours:
        return End("answered", value=inputs.get(stay.keyset.get("response", "")) or {}) if resumes(after) else None
    response, verdict = (inputs.get(key) for key in stay.evidence)
    if response is not None:
        value, delivery = opened(response)
        return End("answered", delivery.get("signal"), delivery.get("key"), value)
    if verdict is not None and after.state_type not in FINAL_TYPES:
        return End("rejected" if verdict.get("action") == "reject" else "timed out", verdict.get("signal"))
    return End("timed out") if after.message.startswith(GAVE_UP) else None


def step(run: RunView, record: SignalRecord) -> DecisionStep:
    """Return the next step, from the run's present state."""
    mark = record.marks.get(run.run_id)
    if mark is not None:
        if mark.outcome is not None:
            return DecisionStep.SKIP
        return DecisionStep.APPLY if run.is_in(mark.wait) else DecisionStep.RESOLVE
    if not _may_be_meant(run, record.signal):
        return DecisionStep.SKIP
    first_look = record.status == RECEIVED
    if run.waiting:
        return DecisionStep.LOOK_BACK if first_look and record.received < run.entered else DecisionStep.APPLY
    if run.final or first_look:
        return DecisionStep.LOOK_BACK
    return DecisionStep.KEEP


def _may_be_meant(run: RunView, signal: ResumeSignal) -> bool:
    """Whether the signal is for the run, and where it names a wait, for the one that the run is in."""
    if signal.key is not None and signal.key not in run.keys:
        return False
    return signal.wait is None or not run.waiting or signal.wait == run.wait_name


def sent_to(run: RunView, record: SignalRecord, stays: Sequence[Stay]) -> tuple[Stay, Stay] | None:
    """Return the wait that the run was in when the signal came, and the next state; None if it was in none.

    A wait for all of several keys does not count if the signal's key was not answered in it.
    """
    key = record.signal.key
    for stay, after in pairwise(stays):
        meant = key is None or (key in stay.keys and not (stay.need_all and key in run.keys))
        if stay.state_type == "PAUSED" and meant and stay.entered <= record.received <= after.entered:
            return stay, after
    return None


def missed(run: RunView, record: SignalRecord, stay: Stay | None, end: End | None) -> SignalDecision | None:
    """Return the outcome of a signal for a run that is no longer in the wait ``stay`` that the signal was sent to.

    None if a later wait may take the signal: it came early, or the wait was left without an answer.
    """
    if stay is not None and end is not None:
        return _gone(stay, end)
    return over(run) if run.final and record.signal.key is None else None


def resolved(
    run: RunView, record: SignalRecord, mark: Mark, stays: Sequence[Stay], inputs: Mapping[str, Any]
) -> SignalDecision | None:
    """Return whether this signal ended the wait that it was being applied to.

    None if the wait is open. ``inputs`` holds the wait's evidence (see `end_of`). Where two resumes of Prefect's own
    pauses cannot be distinguished, their effect is the same, and the signal counts as applied.
    """
    place = next((place for place, stay in enumerate(stays) if stay.is_wait(mark.wait)), None)
    if place is None or place + 1 >= len(stays):
        return over(run) if run.final and record.signal.key is None else None
    stay, after = stays[place], stays[place + 1]
    signal = record.signal
    end = end_of(stay, after, inputs)
    if stay.ours:
        applied = end is not None and end.signal == signal.id
    elif signal.action == "reject":
        applied = after.message == rejection(signal)
    else:
        applied = end is not None and end.value == (signal.input if stay.keyset else {})
    if applied:
        return SignalDecision(Outcome.APPLIED, applied_to(run))
    return missed(run, record, stay, end)


def outlives(record: SignalRecord, stay: Stay, end: End | None) -> bool:
    """Whether a later wait may take a signal that came too late for the wait it was tried on.

    True if the signal was not sent during that wait, because an early signal counts for the next wait that takes it, or
    if another of several keys was answered.
    """
    if record.received < stay.entered or (stay.left is not None and stay.left < record.received):
        return True
    return (
        end is not None and stay.need_all and record.signal.key is not None and end.key not in {None, record.signal.key}
    )


def over(run: RunView) -> SignalDecision:
    """Return the outcome of a signal for a run that has ended."""
    return SignalDecision(Outcome.REJECTED, f"the run is over: {run.state_name}")


def rejection(signal: ResumeSignal) -> str:
    """Return the message of the state to which a rejection sets a run."""
    why = f": {signal.reason}" if signal.reason else ""
    return f"Rejected by {signal.by or 'an unnamed sender'}{why} (signal {signal.id})"


def applied_to(run: RunView) -> str:
    """Return the reason of an applied signal."""
    return f"applied to the run {run.name}"


def overall(record: SignalRecord) -> SignalDecision | None:
    """Return the outcome of a signal for a key from those for each run; None while there is no run."""
    marks = [mark for mark in record.marks.values() if mark.outcome is not None]
    for outcome in (Outcome.APPLIED, Outcome.REJECTED, Outcome.DUPLICATE, Outcome.EXPIRED):
        of_kind = [mark for mark in marks if mark.outcome is outcome]
        if of_kind:
            more = f" (and {len(of_kind) - 1} more runs)" if len(of_kind) > 1 else ""
            return SignalDecision(outcome, of_kind[0].reason + more)
    return None


def expired(record: SignalRecord) -> SignalDecision:
    """Return the outcome of a signal whose time to live has ended."""
    return SignalDecision(
        Outcome.EXPIRED, f"nobody waited for it within its time to live, {record.signal.ttl_seconds:g} s"
    )


def _gone(stay: Stay, end: End) -> SignalDecision:
    since = f"the wait since {stay.entered:%H:%M:%S} UTC"
    match end.how:
        case "timed out":
            return SignalDecision(Outcome.REJECTED, f"{since} had ended: nobody had answered in time")
        case how:
            return SignalDecision(Outcome.DUPLICATE, f"{since} was {how} by another before")


def resumes(after: Stay) -> bool:
    """Whether the state after one of Prefect's own pauses shows that somebody resumed the run."""
    return after.state_type in {"RUNNING", "SCHEDULED"} and not after.message.startswith(GAVE_UP)
