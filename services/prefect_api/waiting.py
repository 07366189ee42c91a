"""Flow runs that wait: finding them, reading their state, and letting them go on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any, Final

from events.errors import NotFound, RejectedEvent, TransientError
from services.prefect_api.client import PrefectApi
from sluice.protocol import AWAITS, DEADLINE, NEED, REMINDER, WAIT, keys_of, verdict_key

PAGE: Final = 25
"""How many runs are listed in one answer. Prefect could list 200, and would serve nobody else for a good while."""

_FINAL: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
_CONFLICT: Final = "Prefect answered 409"
_NO_SCHEMA: Final = "Run input schema not found"


@dataclass(frozen=True, slots=True)
class Stay:
    """A run's time in one state: which, since when and until when (None: it is in it now)."""

    state_id: str
    state_type: str
    state_name: str
    message: str
    entered: datetime
    left: datetime | None
    pause_key: str | None
    keyset: Mapping[str, str]

    @property
    def keys(self) -> tuple[str, ...]:
        """The correlation keys that it was a wait for."""
        return keys_of(self.keyset)

    @property
    def need_all(self) -> bool:
        """Whether an answer for one of the keys left the others open."""
        return self.keyset.get(NEED) == "all"


@dataclass(frozen=True, slots=True)
class RunView:
    """A flow run as the server had it at one moment."""

    run_id: str
    name: str
    state_id: str
    state_type: str
    state_name: str
    entered: datetime
    """When it entered the state, on the server's clock."""
    tagged: tuple[str, ...]
    pause_key: str | None
    keyset: Mapping[str, str]
    suspended: bool
    heard: bool = False
    """Remembered from when it began to wait, and not read just now."""

    @property
    def waiting(self) -> bool:
        """Whether it is paused or suspended."""
        return self.state_type == "PAUSED"

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.state_type in _FINAL

    @property
    def ours(self) -> bool:
        """Whether `sluice.wait_for_signal` made this wait, and not Prefect's own pause or suspend."""
        return self.waiting and (self.pause_key or "").startswith(WAIT)

    @property
    def keys(self) -> tuple[str, ...]:
        """The correlation keys that it waits for now: those of its tags that its paused state names too."""
        if not self.ours:
            return ()
        return tuple(key for key in keys_of(self.keyset) if key in self.tagged)

    @property
    def need_all(self) -> bool:
        """Whether an answer for one of the keys leaves the others open."""
        return self.keyset.get(NEED) == "all"

    @property
    def deadline(self) -> datetime | None:
        """When a suspended wait ends unanswered."""
        return _moment(self.keyset.get(DEADLINE))

    @property
    def reminder(self) -> datetime | None:
        """When a suspended wait is reminded of."""
        return _moment(self.keyset.get(REMINDER))

    @property
    def memo(self) -> str:
        """The view as JSON, for `remembered`."""
        fields = {name: getattr(self, name) for name in _MEMO}
        return json.dumps({**fields, "entered": self.entered.isoformat()})


_MEMO: Final = (
    "run_id", "name", "state_id", "state_type", "state_name", "tagged", "pause_key", "keyset", "suspended",
)  # fmt: skip


def remembered(memo: str) -> RunView:
    """The view that was kept as its ``memo``: true when it was heard, to be taken as a hint now."""
    fields = json.loads(memo)
    entered = datetime.fromisoformat(fields["entered"])
    return RunView(**{**fields, "entered": entered, "tagged": tuple(fields["tagged"])}, heard=True)


class Undone(Enum):
    """Why Prefect did not let a run go on, where that is nobody's fault."""

    NOT_WAITING = auto()
    NO_SCHEMA_YET = auto()
    """The run is paused and about to say what its input looks like: try again in a moment."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The run left the wait at that moment, on the server's clock."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Refused:
    """Prefect refused the input; the run goes on waiting unless ``ended`` (its pause had timed out in Prefect)."""

    reason: str
    ended: bool = False


class WaitingRuns:
    """Prefect's API as far as it is about waiting runs.

    No call is repeated by itself. Every method raises `TransientError` when Prefect is out of reach.
    """

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def read(self, run_id: str) -> RunView:
        """The run as it is now; raises `NotFound`."""
        return _view(await self._api.request("GET", f"/flow_runs/{run_id}", once=True))

    async def read_many(self, run_ids: Sequence[str]) -> list[RunView]:
        """Those of the runs that exist."""
        found: list[RunView] = []
        for start in range(0, len(run_ids), PAGE):
            narrowed = {"id": {"any_": list(run_ids[start : start + PAGE])}}
            found += [_view(run) for run in await self._filter(narrowed, 0)]
        return found

    async def waiting_for(self, keys: Iterable[str]) -> list[RunView]:
        """The runs that wait for any of the keys, the one that waits longest first."""
        tags = [AWAITS + key for key in keys]
        narrowed = {"tags": {"any_": tags}, "state": {"type": {"any_": ["PAUSED"]}}}
        found: list[RunView] = []
        while page := await self._filter(narrowed, len(found)):
            found += [_view(run) for run in page]
            if len(page) < PAGE:
                break
        return sorted((run for run in found if run.keys), key=lambda run: run.entered)

    async def paused(self) -> AsyncIterator[list[RunView]]:
        """Every paused or suspended run, a page at a time."""
        offset = 0
        narrowed = {"state": {"type": {"any_": ["PAUSED"]}}}
        while page := await self._filter(narrowed, offset):
            yield [_view(run) for run in page]
            offset += len(page)
            if len(page) < PAGE:
                break

    async def stays(self, run_id: str) -> list[Stay]:
        """The run's states in order."""
        rows = await self._api.request("GET", "/flow_run_states/", once=True, params={"flow_run_id": run_id})
        rows = sorted(rows, key=lambda row: datetime.fromisoformat(row["timestamp"]))
        return [
            Stay(
                state_id=row["id"],
                state_type=row["type"],
                state_name=row.get("name") or "",
                message=row.get("message") or "",
                entered=datetime.fromisoformat(row["timestamp"]),
                left=datetime.fromisoformat(later["timestamp"]) if later else None,
                pause_key=(row.get("state_details") or {}).get("pause_key"),
                keyset=(row.get("state_details") or {}).get("run_input_keyset") or {},
            )
            for row, later in zip(rows, [*rows[1:], None], strict=True)
        ]

    async def resume(self, run: RunView, value: Mapping[str, Any]) -> Resumed | Undone | Refused:
        """Let the run go on with ``value``, as the UI's Resume button does: transition and input are one transaction.

        A `TransientError` leaves open whether it happened: read the run to see.
        """
        body: dict[str, Any] = {"run_input": dict(value)} if run.keyset or value else {}
        try:
            answer = await self._api.request("POST", f"/flow_runs/{run.run_id}/resume", once=True, json=body)
        except RejectedEvent as error:
            if _CONFLICT not in str(error):
                return Refused(str(error))
            # Another resume was faster, or an answer from before is in the way; the next try finds neither.
            await self._drop_stale_response(run)
            raise TransientError(str(error)) from error
        reason = ((answer.get("details") or {}).get("reason") or "").removeprefix("Reason: ")
        match answer["status"]:
            case "ACCEPT":
                return _resumed(answer)
            case "ABORT":
                return Undone.NOT_WAITING
            case _ if reason.startswith(_NO_SCHEMA):
                return Undone.NO_SCHEMA_YET
            case _:
                state = answer.get("state") or {}
                return Refused(reason or f"Prefect answered {answer['status']}", ended=state.get("type") in _FINAL)

    async def end_wait(self, run: RunView, verdict: Mapping[str, Any], message: str) -> Resumed | Undone:
        """Let a run of `sluice.wait_for_signal` go on without an answer; it finds ``verdict`` and acts on it."""
        await self._put(run.run_id, verdict_key(run.pause_key or ""), verdict)
        if run.suspended:
            state = {"type": "SCHEDULED", "name": "Resuming", "message": message}
        else:
            state = {"type": "RUNNING", "name": "Running", "message": message}
        return await self._set_state(run.run_id, state)

    async def cancel(self, run: RunView, message: str) -> Resumed | Undone:
        """Cancel a run that waits in Prefect's own pause: it has said nothing about rejections."""
        # A suspended run has no process to end; Prefect would cancel it without the message.
        kind = ("CANCELLED", "Cancelled") if run.suspended else ("CANCELLING", "Cancelling")
        return await self._set_state(run.run_id, {"type": kind[0], "name": kind[1], "message": message})

    async def inputs(self, run_id: str, keys: Sequence[str]) -> dict[str, Any]:
        """Those of the run inputs that are there, parsed."""
        found: dict[str, Any] = {}
        for key in keys:
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
        body = {"state": dict(state), "force": False}
        answer = await self._api.request("POST", f"/flow_runs/{run_id}/set_state", once=True, json=body)
        return _resumed(answer) if answer["status"] == "ACCEPT" else Undone.NOT_WAITING

    async def _put(self, run_id: str, key: str, value: Any) -> None:
        body = {"key": key, "value": json.dumps(value)}
        for _ in range(2):
            try:
                await self._api.request("POST", f"/flow_runs/{run_id}/input", once=True, json=body)
            except RejectedEvent:  # 409: an earlier one is there
                await self._delete(run_id, key)
            else:
                return

    async def _delete(self, run_id: str, key: str) -> None:
        try:
            await self._api.request("DELETE", f"/flow_runs/{run_id}/input/{key}", once=True)
        except NotFound:
            return

    async def _drop_stale_response(self, run: RunView) -> None:
        """A run that failed and was tried again pauses under its old key: Prefect then cannot store a second answer."""
        key = run.keyset.get("response")
        if key is None:
            return
        now = await self.read(run.run_id)
        if now.state_id == run.state_id and await self.inputs(run.run_id, [key]):
            await self._delete(run.run_id, key)


def _view(run: Mapping[str, Any]) -> RunView:
    state = run.get("state") or {}
    details = state.get("state_details") or {}
    return RunView(
        run_id=run["id"],
        name=run["name"],
        state_id=state.get("id") or "",
        state_type=state.get("type") or "PENDING",
        state_name=state.get("name") or "",
        entered=datetime.fromisoformat(state.get("timestamp") or run["created"]),
        tagged=tuple(tag.removeprefix(AWAITS) for tag in run.get("tags") or () if tag.startswith(AWAITS)),
        pause_key=details.get("pause_key"),
        keyset=details.get("run_input_keyset") or {},
        suspended=bool(details.get("pause_reschedule")),
    )


def _resumed(answer: Mapping[str, Any]) -> Resumed:
    return Resumed(at=datetime.fromisoformat(answer["state"]["timestamp"]))


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
