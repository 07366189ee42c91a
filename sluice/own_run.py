"""The waiting run's own data in Prefect: state, tags and run inputs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateDetails, StateType
from prefect.client.schemas.responses import SetStateStatus, StateAbortDetails, StateRejectDetails
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.input.run_input import run_input_subclass_from_type
from prefect.logging import get_logger
from pydantic import BaseModel

from sluice.forerunners import forerunners
from sluice.past import answer_in
from sluice.protocol import form, form_key, inputs_prefix, reminder_id, shown_form
from sluice.wait_result import Answer

REMINDER_EVENT: Final = "sluice.signal.reminder"

_CALL_SECONDS: Final = 5.0
"""Prefect's client retries with ever longer pauses; after this time a call is started again."""

_AGAIN_SECONDS: Final = 0.5

_ANY_OBJECT: Final = {"type": "object", "title": "Input", "properties": {}, "additionalProperties": True}
_INPUTS: Final = 1000
"""More run inputs than a wait has: three for its last entry, and an answer or a verdict."""

_CONFLICT: Final = 409
_GONE: Final = 404

OUT_OF_REACH: Final = (httpx.TransportError, OSError, TimeoutError)
"""Exceptions for a missing response. Prefect's client itself retries responses with a server error."""

UNREACHABLE: Final = (httpx.HTTPError, OSError, TimeoutError)


class OwnRun:
    """The flow run that this process executes, by way of Prefect's client."""

    def __init__(self, client: PrefectClient, run_id: UUID) -> None:
        self._client = client
        self._id = run_id

    async def read(self) -> FlowRun:
        """Return the run from the server; raises one of `UNREACHABLE` after 5 s."""
        return await asyncio.wait_for(self._client.read_flow_run(self._id), _CALL_SECONDS)

    async def read_patiently(self) -> FlowRun:
        """Return the run once the server can be reached, however long that takes."""
        while True:
            try:
                return await self.read()
            except OUT_OF_REACH as error:
                get_logger("sluice").debug("Prefect is out of reach, asking again: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def states(self) -> list[State[Any]]:
        """The run's states, oldest first."""
        found = await self._client.read_flow_run_states(self._id)
        return sorted(found, key=lambda state: state.timestamp)

    async def inputs(self, wait: str, *, of: UUID | None = None) -> dict[str, Any]:
        """Return the run inputs of all entries of the wait, parsed, by key; ``of`` is the id of another run."""
        found = await self._client.filter_flow_run_input(
            flow_run_id=of or self._id, key_prefix=inputs_prefix(wait), limit=_INPUTS, exclude_keys=set()
        )
        return {row.key: json.loads(row.value) for row in found}

    async def inherited(self, run: FlowRun, wait: str) -> Answer | None:
        """Return the answer to the wait in a run that this one replaces; ``run`` is this one as it was read."""
        for earlier in await forerunners(self._client, run):
            answer = answer_in(await self.inputs(wait, of=earlier))
            if answer is not None:
                return answer
        return None

    async def put(self, key: str, value: Any, *, replace: bool = False) -> bool:
        """Write a run input; an existing one stays (returns false) unless ``replace``."""
        text = json.dumps(value)
        while True:  # the client repeats a request whose response was lost, and meets its own result
            try:
                await self._client.create_flow_run_input(flow_run_id=self._id, key=key, value=text)
            except PrefectHTTPStatusError as error:
                if error.response.status_code != _CONFLICT:
                    raise
                if not replace:
                    return False
                await self.drop(key)
            else:
                return True

    async def drop(self, key: str) -> None:
        """Delete a run input, if it exists."""
        try:
            await self._client.delete_flow_run_input(flow_run_id=self._id, key=key)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != _GONE:
                raise

    async def keep_form(self, pause: str, model: type[BaseModel] | None, description: str) -> dict[str, Any]:
        """Store the form before the run pauses, and return it for `show_form`."""
        schema = _ANY_OBJECT
        if model is not None:
            # As Prefect's own `wait_for_input`: the same form in the UI, and unknown fields are refused.
            schema = run_input_subclass_from_type(model).model_json_schema(by_alias=True)
        whole = {"schema": form(schema, pause), "description": description}
        await self.put(form_key(pause), whole, replace=True)
        return whole

    async def show_form(self, pause: str, whole: Mapping[str, Any]) -> None:
        """Copy the form to where Prefect looks for it, when the run is paused, however long that takes."""
        while True:
            try:
                for key, value in shown_form(pause, whole).items():
                    await self.put(key, value)
            except ObjectNotFound:
                return  # the run was deleted
            except UNREACHABLE as error:
                get_logger("sluice").debug("The form of the wait could not be written yet: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    async def set_tags(self, tags: Sequence[str]) -> None:
        """Replace the run's tags."""
        await self._client.update_flow_run(flow_run_id=self._id, tags=tags)

    async def pause(
        self, pause: str, *, keyset: dict[str, str], message: str, suspend: bool
    ) -> tuple[State[Any] | None, str]:
        """Enter the paused state; return it, or None with the server's reason."""
        state: State[Any] = State(
            type=StateType.PAUSED,
            name="Suspended" if suspend else "Paused",
            message=message,
            state_details=StateDetails(pause_key=pause, pause_reschedule=suspend, run_input_keyset=keyset),
        )
        return await self._set(state)

    async def go_on(self, message: str) -> State[Any] | None:
        """Leave the paused state because nobody answered; None if the server refuses."""
        state, _ = await self._set(State(type=StateType.RUNNING, name="Running", message=message))
        return state

    async def cancel(self, message: str) -> State[Any]:
        """End the run as Cancelled, whatever state it is in."""
        state: State[Any] = State(type=StateType.CANCELLED, name="Cancelled", message=message)
        answer = await self._client.set_flow_run_state(self._id, state, force=True)
        return answer.state or state

    async def remind(self, pause: str, payload: Mapping[str, Any]) -> None:
        """Publish `REMINDER_EVENT` about the run; Prefect keeps one for each pause."""
        body = {
            "id": reminder_id(str(self._id), pause),
            "event": REMINDER_EVENT,
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": f"prefect.flow-run.{self._id}"},
            "related": [],
            "payload": dict(payload),
        }
        try:
            await self._client.request("POST", "/events", json=[body])
        except UNREACHABLE as error:
            get_logger("sluice").warning("The reminder was not sent: %s", error)

    async def _set(self, state: State[Any]) -> tuple[State[Any] | None, str]:
        answer = await self._client.set_flow_run_state(self._id, state)
        if answer.status == SetStateStatus.ACCEPT:
            return answer.state, ""
        details = answer.details
        reason = details.reason if isinstance(details, StateAbortDetails | StateRejectDetails) else None
        return None, reason or f"Prefect answered {answer.status.value}"
