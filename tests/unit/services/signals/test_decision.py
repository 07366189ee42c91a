"""What becomes of a signal, decided from the run's state and its past."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from events.signal import Outcome, signal_from_mapping
from services.prefect_api.run_view import RunView, Stay
from services.signals.decision import (
    DecisionStep,
    end_of,
    missed,
    outlives,
    overall,
    rejection,
    resolved,
    sent_to,
    step,
)
from services.store.signals.signal_record import Mark, SignalRecord
from sluice.protocol import GAVE_UP, addressed, keyset, verdict_key

RUN = "b7f6d1de-9a0f-4d0e-9a6d-5a1a2f3b4c5d"
T0 = datetime(2026, 1, 1, tzinfo=UTC)
WAIT = "sluice-wait-1-k"
FIELDS = keyset(WAIT, keys=["k"])
RESPONSE = FIELDS["response"]
BY_HAND = {RESPONSE: {"n": 1}}


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def run(
    state: str = "PAUSED", *, entered: float = 0, state_id: str = "s1", fields: dict[str, str] | None = None
) -> RunView:
    return RunView(
        run_id=RUN,
        name="owl",
        state_id=state_id,
        state_type=state,
        state_name=state.title(),
        entered=at(entered),
        pause_key=WAIT,
        keyset=FIELDS if fields is None else fields,
        suspended=False,
    )


def record(
    received: float = 1, *, status: str = "received", marks: dict[str, Mark] | None = None, **signal: Any
) -> SignalRecord:
    target = {} if "key" in signal else {"run_id": RUN}
    return SignalRecord(
        signal=signal_from_mapping({"id": "x", **target, **signal}),
        origin="test",
        place=1,
        received=at(received),
        status=status,
        reason="",
        decided=None,
        repeats=0,
        marks=marks or {},
        log=(),
    )


def stay(state: str, entered: float, left: float | None, *, state_id: str = "s1", message: str = "") -> Stay:
    fields = FIELDS if state == "PAUSED" else {}
    pause = WAIT if state == "PAUSED" else None
    return Stay(
        state_id, state, state.title(), message, at(entered), at(left) if left is not None else None, pause, fields
    )


@pytest.mark.parametrize(
    ("view", "found", "expected"),
    [
        (run(), record(), DecisionStep.APPLY),
        (run(), record(-5, status="buffered"), DecisionStep.APPLY),
        (run(entered=2), record(1), DecisionStep.LOOK_BACK),
        (run("RUNNING"), record(), DecisionStep.LOOK_BACK),
        (run("RUNNING"), record(status="buffered"), DecisionStep.KEEP),
        (run("COMPLETED"), record(status="buffered"), DecisionStep.LOOK_BACK),
        (run(), record(key="k"), DecisionStep.APPLY),
        (run(), record(key="other"), DecisionStep.SKIP),
        (run(state_id="s2"), record(marks={RUN: Mark(wait=WAIT)}), DecisionStep.APPLY),
        (run(), record(marks={RUN: Mark(wait="s1")}), DecisionStep.APPLY),
        (run(state_id="s2"), record(marks={RUN: Mark(wait="s1")}), DecisionStep.RESOLVE),
        (run("RUNNING"), record(marks={RUN: Mark(wait=WAIT)}), DecisionStep.RESOLVE),
        (run(), record(marks={RUN: Mark(wait="w0", outcome=Outcome.APPLIED)}), DecisionStep.SKIP),
    ],
)  # fmt: skip
def test_the_next_step(view: RunView, found: SignalRecord, expected: DecisionStep) -> None:
    assert step(view, found) is expected


def outcome(verdict: Any) -> Outcome | None:
    return verdict and verdict.outcome


def late(view: RunView, found: SignalRecord, stays: list[Stay], inputs: dict[str, Any]) -> Outcome | None:
    """What becomes of a signal that is looked at when the run has left the wait."""
    meant = sent_to(view, found, stays)
    if meant is None:
        return outcome(missed(view, found, None, None))
    return outcome(missed(view, found, meant[0], end_of(*meant, inputs)))


LEFT = [stay("PAUSED", 0, 2), stay("RUNNING", 2, None, state_id="s2")]


def test_a_signal_sent_during_a_wait_that_another_answered_is_a_duplicate() -> None:
    assert late(run("RUNNING"), record(1), LEFT, BY_HAND) is Outcome.DUPLICATE
    assert late(run("RUNNING"), record(1, key="k"), LEFT, BY_HAND) is Outcome.DUPLICATE


@pytest.mark.parametrize("state", ["RUNNING", "SCHEDULED", "CRASHED"])
def test_a_signal_sent_during_a_wait_that_was_left_without_an_answer_is_still_good(state: str) -> None:
    stays = [stay("PAUSED", 0, 2), stay(state, 2, None, state_id="s2")]
    assert late(run(state), record(1, key="k"), stays, {}) is None
    over = Outcome.REJECTED if state == "CRASHED" else None
    assert late(run(state), record(1), stays, {}) is over


def test_a_signal_sent_before_or_after_a_wait_came_early_for_the_next() -> None:
    assert late(run("RUNNING"), record(-1), LEFT, BY_HAND) is None
    assert late(run("RUNNING"), record(3), LEFT, BY_HAND) is None


def test_a_signal_for_another_key_of_a_wait_for_all_is_kept() -> None:
    fields = keyset(WAIT, keys=["k", "l"], need_all=True)
    first = Stay("s1", "PAUSED", "Paused", "", at(0), at(2), WAIT, fields)
    stays = [first, stay("RUNNING", 2, 3, state_id="s2"), stay("PAUSED", 3, None, state_id="s3")]
    assert late(run(entered=3, state_id="s3"), record(1, key="k"), stays, BY_HAND) is None


def test_a_wait_that_ended_in_time_rejects_what_came_too_late() -> None:
    verdict = {verdict_key(WAIT): {"action": "timeout"}}
    assert late(run("RUNNING"), record(1), LEFT, verdict) is Outcome.REJECTED
    gave_up = [LEFT[0], stay("RUNNING", 2, None, state_id="s2", message=f"{GAVE_UP} within 2 s")]
    assert late(run("RUNNING"), record(1), gave_up, {}) is Outcome.REJECTED


def test_a_run_that_is_over_rejects_what_comes_after_its_waits() -> None:
    ended = stay("COMPLETED", 5, None, state_id="s9")
    for stays in ([ended], [stay("PAUSED", 0, 2), stay("RUNNING", 2, 5, state_id="s2"), ended]):
        found = missed(run("COMPLETED"), record(6), None, None)
        assert sent_to(run("COMPLETED"), record(6), stays) is None
        assert found is not None
        assert (found.outcome, found.reason) == (Outcome.REJECTED, "the run is over: Completed")


CLAIM = Mark(wait=WAIT)


def brought_by(signal_id: str) -> dict[str, Any]:
    return {RESPONSE: addressed({"n": 1}, pause="sluice-wait-1-k", signal=signal_id, key=None)}


@pytest.mark.parametrize(
    ("after", "inputs", "sent", "expected"),
    [
        ({}, brought_by("x"), {"input": {"n": 1}}, Outcome.APPLIED),
        ({}, brought_by("another"), {"input": {"n": 1}}, Outcome.DUPLICATE),
        ({}, {RESPONSE: {"n": 1}}, {"input": {"n": 1}}, Outcome.DUPLICATE),  # the UI's Resume button
        ({}, {}, {}, None),
        ({"state": "CRASHED"}, {}, {}, Outcome.REJECTED),
        ({"message": f"{GAVE_UP} within 2 s"}, {}, {}, Outcome.REJECTED),
        ({"state": "CANCELLED"}, {}, {}, Outcome.REJECTED),
    ],
)
def test_after_a_crash_the_runs_past_tells_whose_resume_it_was(
    after: dict[str, str], inputs: dict[str, Any], sent: dict[str, Any], expected: Outcome | None
) -> None:
    state = after.get("state", "RUNNING")
    stays = [stay("PAUSED", 0, 2), stay(state, 2, None, state_id="s2", message=after.get("message", ""))]
    assert outcome(resolved(run(state), record(**sent), CLAIM, stays, inputs)) is expected


@pytest.mark.parametrize(
    ("given", "sent", "expected"),
    [({"n": 1}, {"n": 1}, Outcome.APPLIED), ({"n": 2}, {"n": 1}, Outcome.DUPLICATE), ({}, {"n": 1}, Outcome.DUPLICATE)],
)
def test_after_a_crash_an_answer_to_prefects_own_pause_is_known_by_what_it_says(
    given: dict[str, int], sent: dict[str, int], expected: Outcome
) -> None:
    own = {"schema": "pause-1-schema", "response": "pause-1-response"}
    paused = Stay("s1", "PAUSED", "Paused", "", at(0), at(2), "1", own)
    stays = [paused, stay("RUNNING", 2, None, state_id="s2")]
    found = resolved(run("RUNNING"), record(input=sent), Mark(wait="s1"), stays, {"pause-1-response": given})
    assert outcome(found) is expected


@pytest.mark.parametrize(("answered", "good"), [("l", True), ("k", False), (None, False)])
def test_a_signal_for_one_of_several_keys_outlives_an_answer_for_another(answered: str | None, good: bool) -> None:
    fields = keyset(WAIT, keys=["k", "l"], need_all=True)
    paused = Stay("s1", "PAUSED", "Paused", "", at(0), at(2), WAIT, fields)
    given = {RESPONSE: addressed({}, pause=WAIT, signal="y", key=answered)}
    end = end_of(paused, LEFT[1], given)
    assert outlives(record(1, key="k"), paused, end) is good
    assert outlives(record(3, key="k"), paused, end), "it came after that wait"
    assert outlives(record(-1, key="k"), paused, end), "it came before that wait, and another was quicker"


def test_after_a_crash_a_rejection_is_known_by_the_verdict_that_stands() -> None:
    found = record(action="reject", by="ann")
    for signal, expected in (("x", Outcome.APPLIED), ("another", Outcome.DUPLICATE)):
        verdict = {verdict_key(WAIT): {"action": "reject", "signal": signal}}
        assert outcome(resolved(run("RUNNING"), found, CLAIM, LEFT, verdict)) is expected
        crashed = [LEFT[0], stay("CRASHED", 2, None, state_id="s2")]
        assert outcome(resolved(run("CRASHED"), found, CLAIM, crashed, verdict)) is Outcome.REJECTED
    assert outcome(resolved(run("RUNNING"), found, CLAIM, LEFT, verdict | BY_HAND)) is Outcome.DUPLICATE


def test_after_a_crash_a_rejection_of_prefects_own_pause_is_known_by_its_message() -> None:
    found = record(action="reject", by="ann")
    paused = Stay("s1", "PAUSED", "Paused", "", at(0), at(2), "1", {})
    for message, expected in ((rejection(found.signal), Outcome.APPLIED), ("", None)):
        stays = [paused, stay("CANCELLING", 2, None, state_id="s2", message=message)]
        assert outcome(resolved(run("CANCELLING"), found, Mark(wait="s1"), stays, {})) is expected


def test_a_signal_for_many_runs_is_applied_if_it_was_to_one() -> None:
    marks = {str(number): Mark(wait="w", outcome=one) for number, one in enumerate(Outcome)}
    assert outcome(overall(record(marks=marks, key="k"))) is Outcome.APPLIED
    assert overall(record(marks={"r": CLAIM}, key="k")) is None
