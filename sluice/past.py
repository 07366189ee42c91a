"""Evaluates a run's past for a wait: its run inputs are the evidence, its states show which of them still count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Abort

from sluice.protocol import entry_of, opened
from sluice.wait_result import Answer, Expiry, Refusal

RESCHEDULED: Final = frozenset({StateType.SCHEDULED, StateType.PENDING})
"""States in which a run is to be executed again, by another process than the one that waits."""

_RESPONSE: Final = "--response"
_VERDICT: Final = "--verdict"


def answer_in(inputs: Mapping[str, Any]) -> Answer | None:
    """Return the answer among the run inputs of a wait: the first one, whichever entry it belongs to."""
    responses = [key for key in inputs if key.endswith(_RESPONSE)]
    if not responses:
        return None
    value, delivery = opened(inputs[min(responses, key=entry_of)])
    return Answer(value=value, key=delivery.get("key"))


def verdicts_in(inputs: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the verdicts among the run inputs of a wait, each with the pause key of its entry, in their order."""
    found = sorted((key for key in inputs if key.endswith(_VERDICT)), key=entry_of)
    return [(key.removesuffix(_VERDICT), inputs[key]) for key in found]


def ended_by(verdict: Mapping[str, Any]) -> Refusal | Expiry:
    """Return how the verdict ends a wait: by a rejection or by its time-out."""
    if verdict.get("action") == "reject":
        return Refusal(by=verdict.get("by"), reason=verdict.get("reason"))
    return Expiry()


def this_attempt(states: Sequence[State[Any]]) -> Sequence[State[Any]]:
    """Return the states since the run last ended, or failed with retries left, after which it was retried.

    Prefect's own record of the pauses does not show that: version 3.9 also deletes it when a waiting run is to start
    again.
    """
    ends = [place for place, state in enumerate(states) if state.is_final() or _failed_before(states, place)]
    return states[ends[-1] + 1 :] if ends else states


def _failed_before(states: Sequence[State[Any]], place: int) -> bool:
    """Whether a flow with retries failed there; the same state can also be set by hand on a waiting run."""
    here, before = states[place], states[place - 1] if place else None
    return here.name == "AwaitingRetry" and before is not None and before.type == StateType.RUNNING


def handed_over(now: State[Any], entered: State[Any]) -> bool:
    """Whether the wait became that of a suspended run, which continues in another process."""
    details = now.state_details
    return (
        now.type == StateType.PAUSED
        and now.id != entered.id
        and bool(details.pause_reschedule)
        and not entered.state_details.pause_reschedule
    )


def ended_with(state: State[Any] | None, when: str) -> Abort:
    """Return the exception that ends the flow without setting a state: Prefect's engine ignores `Abort`."""
    ended = Abort(f"The flow run ended ({state.name if state else 'no state'}) {when}.")
    ended.state = state  # type: ignore[attr-defined]  # read by Prefect's engine
    return ended
