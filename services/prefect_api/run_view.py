"""Flow runs and their state history at one moment: which wait, for what, and since when."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from services.prefect_api.runs import FINAL_TYPES
from sluice.protocol import DEADLINE, IN_PROCESS, KEYS, NEED, REMINDER, SINCE, WAIT, entry_of, keys_of, verdict_key

PROJECT_TAG: Final = "sluice-project:"
"""Prefix of the tag with a run's project, which its deployment has."""


@dataclass(frozen=True, slots=True)
class Stay:
    """A run's time in one state, with its begin and end (None: it is in it now).

    A paused state that was set again under its pause key is one stay, because the wait continued.
    """

    state_id: str
    state_type: str
    state_name: str
    message: str
    entered: datetime
    left: datetime | None
    pause_key: str | None
    keyset: Mapping[str, str]
    later_ids: frozenset[str] = frozenset()
    """The ids of the states in which it was set again."""

    def is_wait(self, wait: str) -> bool:
        """Whether it is the wait with that id (see `RunView.wait_id`), or has the state with that id."""
        return wait in {self.state_id, *self.later_ids} or (self.ours and wait == self.pause_key)

    @property
    def ours(self) -> bool:
        """Whether it was a wait of `sluice.wait_for_signal`."""
        return self.state_type == "PAUSED" and KEYS in self.keyset

    @property
    def evidence(self) -> tuple[str, ...]:
        """The run inputs of which one exists if the wait was answered, rejected or timed out."""
        response = self.keyset.get("response")
        if response is None:
            return ()
        return (response, verdict_key(response.removesuffix("--response"))) if self.ours else (response,)

    @property
    def keys(self) -> tuple[str, ...]:
        """The correlation keys of the wait."""
        return keys_of(self.keyset)

    @property
    def need_all(self) -> bool:
        """Whether an answer for one of the keys left the others open."""
        return self.keyset.get(NEED) == "all"


@dataclass(frozen=True, slots=True)
class RunView:
    """A flow run in Prefect at one moment."""

    run_id: str
    name: str
    state_id: str
    state_type: str
    state_name: str
    entered: datetime
    """When it entered the state, on the server's clock."""
    pause_key: str | None
    keyset: Mapping[str, str]
    suspended: bool
    foreign: bool = False
    """Whether it belongs to a project of another name, so that its keys are not ours."""
    heard: bool = False
    """Whether this was recorded when it began to wait, and not read just now."""

    @property
    def waiting(self) -> bool:
        """Whether it is paused or suspended."""
        return self.state_type == "PAUSED"

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.state_type in FINAL_TYPES

    @property
    def ours(self) -> bool:
        """Whether `sluice.wait_for_signal` made this wait, and not Prefect's own pause or suspend."""
        return self.waiting and not self.foreign and (self.pause_key or "").startswith(WAIT)

    @property
    def wait_id(self) -> str:
        """Identifies its wait: the pause key, which a state that is set again keeps; else the state's id."""
        return self.pause_key if self.ours and self.pause_key else self.state_id

    @property
    def wait_name(self) -> str:
        """Identifies its wait among all runs' waits; the same when it is entered again."""
        return f"{self.run_id} {self.wait_id.partition('--e')[0]}"

    @property
    def handed_over(self) -> bool:
        """Whether a process entered its wait and stayed, and the wait continues without that process."""
        return self.ours and self.suspended and IN_PROCESS in self.keyset

    def is_in(self, wait: str) -> bool:
        """Whether it waits, and in the wait with that id."""
        return self.waiting and wait in {self.wait_id, self.state_id}

    @property
    def keys(self) -> tuple[str, ...]:
        """The correlation keys that it waits for now."""
        return keys_of(self.keyset) if self.ours else ()

    @property
    def since(self) -> datetime:
        """Since when it waits, by the clock of its process if recorded."""
        return _moment(self.keyset.get(SINCE)) or self.entered

    @property
    def open_since(self) -> datetime:
        """Since when the wait has been open: the run need not have been paused all the time."""
        return self.since if entry_of(self.wait_id) > 1 else self.entered

    @property
    def need_all(self) -> bool:
        """Whether an answer for one of the keys leaves the others open."""
        return self.keyset.get(NEED) == "all"

    @property
    def deadline(self) -> datetime | None:
        """When the wait times out, if there is no process that would end it."""
        return _moment(self.keyset.get(DEADLINE)) if self.suspended else None

    @property
    def reminder(self) -> datetime | None:
        """When the reminder is due, if there is no process that would send it."""
        return _moment(self.keyset.get(REMINDER)) if self.suspended else None

    @property
    def memo(self) -> str:
        """The view as JSON, for `remembered`."""
        fields = {name: getattr(self, name) for name in _MEMO}
        return json.dumps({**fields, "entered": self.entered.isoformat()})


_MEMO: Final = (
    "run_id", "name", "state_id", "state_type", "state_name", "pause_key", "keyset", "suspended",
)  # fmt: skip


def remembered(memo: str) -> RunView:
    """Return the view from its ``memo``: as it was when recorded, so only a hint now."""
    fields = json.loads(memo)
    entered = datetime.fromisoformat(fields["entered"])
    return RunView(**{**{name: fields[name] for name in _MEMO}, "entered": entered}, heard=True)


def view(run: Mapping[str, Any]) -> RunView:
    """Return the view of a flow run from Prefect's API."""
    state = run.get("state") or {}
    details = state.get("state_details") or {}
    return RunView(
        run_id=run["id"],
        name=run["name"],
        state_id=state.get("id") or "",
        state_type=state.get("type") or "PENDING",
        state_name=state.get("name") or "",
        entered=datetime.fromisoformat(state.get("timestamp") or run["created"]),
        pause_key=details.get("pause_key"),
        keyset=details.get("run_input_keyset") or {},
        suspended=bool(details.get("pause_reschedule")),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
