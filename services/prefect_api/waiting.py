"""Flow runs that wait: finding them, reading their state, and resuming them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from typing import Any, Final

from events.errors import NotFound, TransientError
from services.prefect_api.client import PrefectApi, PrefectRefused
from services.prefect_api.refusals import explained, names_another_wait
from services.prefect_api.run_view import PROJECT_TAG, RunView, Stay, view
from services.prefect_api.runs import FINAL_TYPES
from sluice.display import visible
from sluice.protocol import AWAITS, description_key, form_key, is_awaiting, shown_form, verdict_key, with_awaits

PAGE: Final = 25
"""Number of runs in one response. Prefect could return 200, but would serve no other request meanwhile."""

_TO_START: Final = frozenset({"SCHEDULED", "PENDING"})
_CONFLICT: Final = 409
_NO_SCHEMA: Final = "Run input schema not found"


_DEEPEST: Final = 20
"""Greatest depth of nested subflows that is followed."""


class Undone(Enum):
    """Why Prefect did not resume a run, if that is nobody's fault."""

    NOT_WAITING = auto()
    NO_SCHEMA_YET = auto()
    """The run is paused and about to store its input's schema: try again in a moment."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The run left the wait at that moment, on the server's clock."""

    at: datetime


@dataclass(frozen=True, slots=True)
class RefusedAnswer:
    """Prefect refused the input; the run keeps waiting unless ``ended`` (its pause had timed out in Prefect)."""

    reason: str
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a wait: the JSON schema of the answer, and the question in markdown."""

    schema: Mapping[str, Any]
    description: str


class WaitingRuns:
    """Calls to Prefect's API about waiting runs of the project named ``project``.

    No call is repeated by itself. Every method raises `TransientError` when Prefect is out of reach.
    """

    def __init__(self, api: PrefectApi, *, project: str | None = None) -> None:
        self._api = api
        self._tag = f"{PROJECT_TAG}{project}"

    def _view(self, run: Mapping[str, Any]) -> RunView:
        """Return the run; keys never address one with the tag of another project's name."""
        named = [tag for tag in run.get("tags") or () if tag.startswith(PROJECT_TAG)]
        return replace(view(run), foreign=bool(named) and self._tag not in named)

    async def read(self, run_id: str) -> RunView:
        """Return the present run; raises `NotFound`."""
        return self._view(await self._api.request("GET", f"/flow_runs/{run_id}", once=True))

    async def read_many(self, run_ids: Sequence[str]) -> list[RunView]:
        """Return those of the runs that exist."""
        found: list[RunView] = []
        for start in range(0, len(run_ids), PAGE):
            narrowed = {"id": {"any_": list(run_ids[start : start + PAGE])}}
            found += [self._view(run) for run in await self._filter(narrowed, 0)]
        return found

    async def has_active_parent(self, run_id: str) -> bool:
        """Whether the run is a subflow, at any depth, of a run that has not ended."""
        for _ in range(_DEEPEST):
            found = await self._api.request("GET", f"/flow_runs/{run_id}", once=True)
            if not found.get("parent_task_run_id"):
                return False
            task = await self._api.request("GET", f"/task_runs/{found['parent_task_run_id']}", once=True)
            run_id = task["flow_run_id"]
            if not (await self.read(run_id)).final:
                return True
        return False

    async def waiting_for(self, keys: Iterable[str]) -> list[RunView]:
        """Return the runs that wait for any of the keys, the one that has waited longest first."""
        tags = [AWAITS + key for key in keys]
        narrowed = {"tags": {"any_": tags}, "state": {"type": {"any_": ["PAUSED"]}}}
        found: list[RunView] = []
        while page := await self._filter(narrowed, len(found)):
            found += [self._view(run) for run in page]
            if len(page) < PAGE:
                break
        return sorted((run for run in found if run.keys), key=lambda run: run.since)

    async def paused(self) -> AsyncIterator[list[RunView]]:
        """Yield every paused or suspended run, a page at a time."""
        offset = 0
        narrowed = {"state": {"type": {"any_": ["PAUSED"]}}}
        while page := await self._filter(narrowed, offset):
            yield [self._view(run) for run in page]
            offset += len(page)
            if len(page) < PAGE:
                break

    async def stays(self, run_id: str) -> list[Stay]:
        """Return the run's states in order; raises `NotFound` for a run that Prefect does not have."""
        rows = await self._api.request("GET", "/flow_run_states/", once=True, params={"flow_run_id": run_id})
        if not rows:
            raise NotFound(f"Prefect does not know the run {run_id}")
        rows = sorted(rows, key=lambda row: datetime.fromisoformat(row["timestamp"]))
        stays: list[Stay] = []
        for row, later in zip(rows, [*rows[1:], None], strict=True):
            details = row.get("state_details") or {}
            stay = Stay(
                state_id=row["id"],
                state_type=row["type"],
                state_name=row.get("name") or "",
                message=row.get("message") or "",
                entered=datetime.fromisoformat(row["timestamp"]),
                left=datetime.fromisoformat(later["timestamp"]) if later else None,
                pause_key=details.get("pause_key"),
                keyset=details.get("run_input_keyset") or {},
            )
            before = stays[-1] if stays else None
            if before is not None and stay.ours and before.ours and stay.pause_key == before.pause_key:
                again = before.later_ids | {stay.state_id}
                stays[-1] = replace(before, left=stay.left, later_ids=again)
            else:
                stays.append(stay)
        return stays

    async def resume(self, run: RunView, value: Mapping[str, Any]) -> Resumed | Undone | RefusedAnswer:
        """Resume the run with ``value``, as the UI's Resume button does: transition and input are one transaction.

        After a `TransientError` the result is unknown: read the run.
        """
        body: dict[str, Any] = {"run_input": dict(value)} if run.keyset or value else {}
        try:
            answer = await self._api.request("POST", f"/flow_runs/{run.run_id}/resume", once=True, json=body)
        except PrefectRefused as error:
            if error.status != _CONFLICT:
                return RefusedAnswer(str(error))
            # Another resume was faster, or an earlier answer is stored under the key; the next try finds neither.
            await self._see_to_stored_response(run)
            raise TransientError(str(error)) from error
        reason = ((answer.get("details") or {}).get("reason") or "").removeprefix("Reason: ")
        match answer["status"]:
            case "ACCEPT":
                return _resumed(answer)
            case "ABORT":
                return Undone.NOT_WAITING
            case _ if reason.startswith(_NO_SCHEMA):
                return await self.resume(run, value) if await self.show_form(run) else Undone.NO_SCHEMA_YET
            case _ if names_another_wait(reason):
                return Undone.NOT_WAITING
            case _:
                state = answer.get("state") or {}
                reason = await self._explained(run, value, reason or f"Prefect answered {answer['status']}")
                return RefusedAnswer(reason, ended=state.get("type") in FINAL_TYPES)

    async def end_wait(self, run: RunView, verdict: Mapping[str, Any], message: str) -> Resumed | Undone:
        """Resume a run of `sluice.wait_for_signal` without an answer; it finds ``verdict`` and acts on it.

        The first verdict counts, and an answer overrules it: `Undone.NOT_WAITING` if this verdict did not end the wait.
        """
        key = verdict_key(run.pause_key or "")
        await self._put_first(run.run_id, key, verdict)
        # Prefect sets any state from any other: the run may have been scheduled again, or have ended, since it was
        # read.
        in_wait = (await self.read(run.run_id)).is_in(run.wait_id)
        answer = await self.go_on(run, message) if in_wait else Undone.NOT_WAITING
        found = await self.inputs(run.run_id, [run.keyset.get("response", ""), key])
        return answer if found == {key: dict(verdict)} else Undone.NOT_WAITING

    async def go_on(self, run: RunView, message: str) -> Resumed | Undone:
        """Resume a waiting run, which then reads its run inputs."""
        kind = ("SCHEDULED", "Resuming") if run.suspended else ("RUNNING", "Running")
        return await self._set_state(run.run_id, {"type": kind[0], "name": kind[1], "message": message})

    async def form(self, run: RunView) -> Form | None:
        """Return the form of a waiting run; None if it accepts any answer, as Prefect's own pause without an input."""
        schema_at, description_at = run.keyset.get("schema", ""), run.keyset.get("description", "")
        found = await self.inputs(run.run_id, [form_key(run.pause_key)] if run.ours and run.pause_key else [])
        if kept := next(iter(found.values()), None):
            return Form(kept["schema"], kept["description"])
        found = await self.inputs(run.run_id, [schema_at, description_at])
        return Form(found[schema_at], found.get(description_at) or "") if schema_at in found else None

    async def show_form(self, run: RunView) -> bool:
        """Show the form of the wait if its process has not, or ended before; return whether it was shown here."""
        pause = run.pause_key or ""
        if not run.ours or await self.inputs(run.run_id, [description_key(pause)]):  # the last one that is written
            return False
        whole = (await self.inputs(run.run_id, [form_key(pause)])).get(form_key(pause))
        if whole is None:
            return False
        for key, value in shown_form(pause, whole).items():
            await self._put_first(run.run_id, key, value)
        return True

    async def untag(self, run_id: str) -> None:
        """Remove the ``awaits:`` tags of a run that has ended, or is to start again; raises `NotFound`.

        Prefect replaces all tags of a run at once: if the run waits again by then, its tags are restored.
        """
        found = await self._api.request("GET", f"/flow_runs/{run_id}", once=True)
        without_process = FINAL_TYPES | _TO_START
        if view(found).state_type not in without_process or not is_awaiting(found["tags"]):
            return
        await self._set_tags(run_id, with_awaits(found["tags"], ()))
        found = await self._api.request("GET", f"/flow_runs/{run_id}", once=True)
        if view(found).keys:
            await self._set_tags(run_id, with_awaits(found["tags"], view(found).keys))

    async def _explained(self, run: RunView, value: Mapping[str, Any], reason: str) -> str:
        key = run.keyset.get("schema", "")
        schema = (await self.inputs(run.run_id, [key])).get(key) if key else None
        return explained(reason, value, schema) if isinstance(schema, dict) else reason

    async def _set_tags(self, run_id: str, tags: Sequence[str]) -> None:
        await self._api.request("PATCH", f"/flow_runs/{run_id}", once=True, json={"tags": list(tags)})

    async def cancel(self, run: RunView, message: str) -> Resumed | Undone:
        """Cancel a run in Prefect's own pause, which has no other way to reject."""
        # A suspended run has no process to end; Prefect would cancel it without the message.
        kind = ("CANCELLED", "Cancelled") if run.suspended else ("CANCELLING", "Cancelling")
        return await self._set_state(run.run_id, {"type": kind[0], "name": kind[1], "message": message})

    async def inputs(self, run_id: str, keys: Sequence[str]) -> dict[str, Any]:
        """Return those of the run inputs that exist, parsed."""
        found: dict[str, Any] = {}
        for key in filter(None, keys):
            try:
                found[key] = await self._api.request("GET", f"/flow_runs/{run_id}/input/{key}", once=True)
            except NotFound:
                continue
        return found

    async def _filter(self, narrowed: Mapping[str, Any], offset: int) -> list[dict[str, Any]]:
        body = {"flow_runs": narrowed, "limit": PAGE, "offset": offset}
        found: list[dict[str, Any]] = await self._api.request("POST", "/flow_runs/filter", once=True, json=body)
        return found

    async def _set_state(self, run_id: str, state: Mapping[str, Any]) -> Resumed | Undone:
        body = {"state": {**state, "message": visible(state["message"], lines=True)}, "force": False}
        answer = await self._api.request("POST", f"/flow_runs/{run_id}/set_state", once=True, json=body)
        return _resumed(answer) if answer["status"] == "ACCEPT" else Undone.NOT_WAITING

    async def _put_first(self, run_id: str, key: str, value: Any) -> None:
        """Write the run input unless there is one."""
        body = {"key": key, "value": json.dumps(value)}
        try:
            await self._api.request("POST", f"/flow_runs/{run_id}/input", once=True, json=body)
        except PrefectRefused as error:
            if error.status != _CONFLICT:
                raise

    async def _delete(self, run_id: str, key: str) -> None:
        try:
            await self._api.request("DELETE", f"/flow_runs/{run_id}/input/{key}", once=True)
        except NotFound:
            return

    async def _see_to_stored_response(self, run: RunView) -> None:
        """Handle an answer that is stored already: Prefect cannot store a second one under the same key.

        A wait of Sluice has a new key each time it is entered: its stored answer counts, and the run was paused again
        in the moment it came. Prefect's own pause has its old key when a failed run is retried: there the stored answer
        is stale.
        """
        key = run.keyset.get("response")
        if key is None:
            return
        stored = await self._stored(run.run_id, key)
        now = await self.read(run.run_id)
        if stored is None or not now.is_in(run.wait_id):
            return
        if now.ours:
            await self.go_on(now, "The wait was answered")
        elif stored < now.entered:  # else it is the answer of another resume in this very moment
            await self._delete(run.run_id, key)

    async def _stored(self, run_id: str, key: str) -> datetime | None:
        """Return when the run input was written; None if there is none."""
        body = {"prefix": key, "limit": 200, "exclude_keys": []}
        rows = await self._api.request("POST", f"/flow_runs/{run_id}/input/filter", once=True, json=body)
        return next((datetime.fromisoformat(row["created"]) for row in rows if row["key"] == key), None)


def _resumed(answer: Mapping[str, Any]) -> Resumed:
    return Resumed(at=datetime.fromisoformat(answer["state"]["timestamp"]))
