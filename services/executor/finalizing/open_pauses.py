"""Runs that are paused when their process ends: they go on waiting without one, or enter the pause again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy, State
from prefect.states import Scheduled

from services.executor.process.own_states import waits_in_process
from sluice.protocol import REMINDER, WAIT

_KEPT: Final = UUID("6f0d6a4e-5d0c-4a27-9d64-1f7f3a0f2f11")
"""Namespace of the ids of the states that keep a pause; the name is the paused state's id."""


async def keep_waiting(client: PrefectClient, flow_run: FlowRun) -> None:
    """Set a paused run to a state in which it waits without a process, as a suspended run does.

    When the run is answered, Prefect schedules it; its flow starts from its top, comes to this pause and finds the
    answer.
    """
    state = flow_run.state
    if state is None:
        return
    details = state.state_details.model_dump(mode="json")
    details |= {
        "pause_reschedule": True,
        # Names the paused state that this one keeps; Prefect's client would set an id of its own here.
        "transition_id": str(_kept_id(state)),
        "run_input_keyset": _without_past_reminder(state.state_details.run_input_keyset),
    }
    kept = {"type": "PAUSED", "name": state.name, "message": state.message, "state_details": details}
    body = {"state": kept, "force": True}
    await client.request("POST", "/flow_runs/{id}/set_state", path_params={"id": flow_run.id}, json=body)
    await heal_kept(client, flow_run)


async def heal_kept(client: PrefectClient, flow_run: FlowRun) -> None:
    """Restore a state that was set between the reading of the paused state and the setting of the one that keeps it.

    Prefect has no "only if the run is still in that state" for a forced state. The run's state history shows whether a
    state came in between, also to a finalizer that starts again after a crash.
    """
    states = sorted(await client.read_flow_run_states(flow_run.id), key=lambda state: state.timestamp)
    last = _overwritten(states)
    if last is None:
        return
    if last.is_cancelling() or last.is_final():
        await client.set_flow_run_state(flow_run.id, _again(last), force=True)
    else:  # the run was resumed; the answer is in the run's inputs
        await client.set_flow_run_state(flow_run.id, Scheduled(name="Resuming", scheduled_time=datetime.now(UTC)))


def policy_for_a_new_start(flow_run: FlowRun) -> FlowRunPolicy:
    """Return the run's policy with which it may start from its top in another process.

    The flow must enter an unanswered pause again: Prefect would take it for answered, because its pause key has been
    used. (`sluice.wait_for_signal` looks for the stored answer instead.) And the attempts of a flow with retries no
    longer belong to the process that began them, because that process has ended.
    """
    policy = flow_run.empirical_policy
    keys = set(policy.pause_keys or ())
    state = flow_run.state
    open_key = state.state_details.pause_key if state is not None and waits_in_process(state) else None
    if open_key is not None and not open_key.startswith(WAIT):
        keys.discard(open_key)
    return policy.model_copy(update={"pause_keys": keys, "retry_type": None})


def _overwritten(states: Sequence[State[Any]]) -> State[Any] | None:
    """Return the last state between a paused state and the one that keeps it, if the run is in the latter."""
    if not states or not states[-1].is_paused():
        return None
    kept = states[-1]
    for position, state in enumerate(states):
        if _kept_id(state) == kept.state_details.transition_id:
            # Two finalizers may keep one pause: the state that the other finalizer set is no sign of an answer.
            between = [other for other in states[position + 1 : -1] if not other.is_paused()]
            return between[-1] if between else None
    return None


def _kept_id(state: State[Any]) -> UUID:
    return uuid5(_KEPT, str(state.id))


def _again(state: State[Any]) -> State[Any]:
    return State(type=state.type, name=state.name, message=state.message, data=state.data)


def _without_past_reminder(keyset: dict[str, str] | None) -> dict[str, str] | None:
    """Drop a reminder that is due: the process has sent it."""
    if not keyset or REMINDER not in keyset or datetime.fromisoformat(keyset[REMINDER]) > datetime.now(UTC):
        return keyset
    return {name: value for name, value in keyset.items() if name != REMINDER}
