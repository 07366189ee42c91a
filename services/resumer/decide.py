"""What to do with a signal for a run: pure decisions over what Prefect and the store say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise
from typing import Any

from events.signal import Outcome, ResumeSignal
from services.prefect_api.waiting import RunView, Stay
from services.store.signal_record import Mark, SignalRecord
from services.store.signal_scripts import RECEIVED
from sluice.protocol import GAVE_UP, KEYS, opened


class Step(Enum):
    """What comes next for one signal and one run."""

    APPLY = auto()
    SKIP = auto()
    """Nothing to do, now or ever."""
    KEEP = auto()
    """Early: the run does not wait."""
    LOOK_BACK = auto()
    """The run is not in the wait that the signal was sent to, if there was one: its past must tell."""
    RESOLVE = auto()
    """A resumer began to apply it and did not say how it ended: the run's past must tell."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome with its reason in words."""

    outcome: Outcome
    reason: str


def step(run: RunView, record: SignalRecord) -> Step:
    """What comes next, from the run as it is now."""
    mark = record.marks.get(run.run_id)
    if mark is not None:
        if mark.outcome is not None:
            return Step.SKIP
        return Step.APPLY if run.waiting and run.state_id == mark.state_id else Step.RESOLVE
    if record.signal.key is not None and record.signal.key not in run.keys:
        return Step.SKIP
    first_look = record.status == RECEIVED
    if run.waiting:
        return Step.LOOK_BACK if first_look and record.received < run.entered else Step.APPLY
    if run.final or first_look:
        return Step.LOOK_BACK
    return Step.KEEP


def missed(run: RunView, record: SignalRecord, stays: Sequence[Stay]) -> Verdict | None:
    """The outcome of a signal that found the run elsewhere than it was sent to; None if it came early."""
    key = record.signal.key
    left = [
        (stay, after)
        for stay, after in pairwise(stays)
        if stay.state_type == "PAUSED"
        and (key is None or (key in stay.keys and not (stay.need_all and key in run.keys)))
    ]
    for stay, after in left:
        if stay.entered <= record.received <= after.entered:
            return _gone(stay, after)
    if not run.final or key is not None:
        return None
    if any(resumes(after) for _, after in left):
        return Verdict(
            Outcome.DUPLICATE, f"the run was resumed before, and ended ({run.state_name}) without waiting again"
        )
    return Verdict(Outcome.REJECTED, f"the run has ended ({run.state_name}) and waits for nothing")


def resolved(
    run: RunView, record: SignalRecord, mark: Mark, stays: Sequence[Stay], inputs: Mapping[str, Any]
) -> Verdict:
    """Whether it was this signal that made the run leave the wait that it was being applied to.

    ``inputs`` holds the wait's response, if Prefect stored one; that of a wait of Sluice names the signal. Where
    nothing tells two resumes of Prefect's own pauses apart, their effect is the same, and the signal counts as applied.
    """
    place = next((place for place, stay in enumerate(stays) if stay.state_id == mark.state_id), None)
    if place is None or place + 1 >= len(stays):
        return Verdict(Outcome.REJECTED, f"the run left its wait unanswered, for {run.state_name}")
    stay, after = stays[place], stays[place + 1]
    if record.signal.action == "reject":
        ours = after.message == rejection(record.signal)
    else:
        given = inputs.get(stay.keyset.get("response", "")) or {}
        if KEYS in stay.keyset:
            _, delivery = opened(given)
            ours = resumes(after) and delivery.get("signal") == record.signal.id
        else:
            ours = resumes(after) and given == (record.signal.input if stay.keyset else {})
    return Verdict(Outcome.APPLIED, applied_to(run)) if ours else _gone(stay, after)


def outlives(record: SignalRecord, stay: Stay, inputs: Mapping[str, Any]) -> bool:
    """Whether a signal that was tried on a wait, and came too late for it, is still good for one to come.

    It is if it was not sent during that wait: an early signal counts for the next wait that takes it. ``inputs`` holds
    the wait's response, if there is one: it says which of several keys was answered.
    """
    if record.received < stay.entered or (stay.left is not None and stay.left < record.received):
        return True
    _, delivery = opened(inputs.get(stay.keyset.get("response", "")) or {})
    return stay.need_all and record.signal.key is not None and delivery.get("key") not in {None, record.signal.key}


def rejection(signal: ResumeSignal) -> str:
    """The message of the state into which the signal rejects a run."""
    why = f": {signal.reason}" if signal.reason else ""
    return f"Rejected by {signal.by or 'an unnamed sender'}{why} (signal {signal.id})"


def applied_to(run: RunView) -> str:
    """The reason of an applied signal."""
    return f"applied to the run {run.name}"


def overall(record: SignalRecord) -> Verdict | None:
    """The outcome of a signal for a key from those for each run; None while there is no run."""
    marks = [mark for mark in record.marks.values() if mark.outcome is not None]
    for outcome in (Outcome.APPLIED, Outcome.REJECTED, Outcome.DUPLICATE, Outcome.EXPIRED):
        of_kind = [mark for mark in marks if mark.outcome is outcome]
        if of_kind:
            more = f" (and {len(of_kind) - 1} more runs)" if len(of_kind) > 1 else ""
            return Verdict(outcome, of_kind[0].reason + more)
    return None


def expired(record: SignalRecord) -> Verdict:
    """The outcome of a signal whose time to live has ended."""
    return Verdict(Outcome.EXPIRED, f"nobody waited for it within its time to live, {record.signal.ttl_seconds:g} s")


def _gone(stay: Stay, after: Stay) -> Verdict:
    if resumes(after):
        return Verdict(Outcome.DUPLICATE, f"the wait since {stay.entered:%H:%M:%S} UTC was answered by another before")
    if after.message.startswith(GAVE_UP):
        return Verdict(Outcome.REJECTED, "the wait had ended: nobody had answered in time")
    return Verdict(Outcome.REJECTED, f"the run left its wait unanswered, for {after.state_name}")


def resumes(after: Stay) -> bool:
    """Whether the state that followed a wait means that somebody answered."""
    return after.state_type in {"RUNNING", "SCHEDULED"} and not after.message.startswith(GAVE_UP)
