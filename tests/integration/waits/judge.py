"""What must be true of runs and signals once nothing moves any more, told by Prefect, the signals and the notes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sluice.protocol import AWAITS, keys_of
from tests.integration.waits.given import Given, Run
from tests.integration.waits.installation import Installation

FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
_OPEN = frozenset({"received", "buffered"})


class Judge:
    def __init__(self, installation: Installation, given: Given) -> None:
        self._installation = installation
        self._given = given

    def moving(self, run: Run) -> list[str]:
        """Why the run is neither at its end nor in a wait as it should be; must become empty by itself."""
        top = self._installation.read(run.id)
        if top is None:
            pids = self._given.notes.processes(run.id)
            return [f"{run.id} was deleted and is executed by {pids}"] if pids else []
        children = [self._installation.read(child) for child in self._given.notes.children(run.id)]
        found = [child for child in children if child is not None]
        in_child = top["state_type"] == "RUNNING" and any(child["state_type"] == "PAUSED" for child in found)
        wrong = [text for child in found for text in self._moving(child)]
        return wrong + self._moving(top, in_child=in_child)

    def _moving(self, run: dict[str, Any], *, in_child: bool = False) -> list[str]:
        kind, details = run["state_type"], run["state"]["state_details"]
        pids = self._given.notes.processes(run["id"])
        tags = {tag.removeprefix(AWAITS) for tag in run["tags"] if tag.startswith(AWAITS)}
        suspended = kind == "PAUSED" and details.get("pause_reschedule")
        keys = set(keys_of(details.get("run_input_keyset"))) if kind == "PAUSED" else set()
        wanted = 0 if suspended or kind in FINAL else 1
        wrong = []
        if kind not in FINAL | {"PAUSED"} and not in_child:
            wrong.append("has not come to its wait or end")
        in_parents_process = run["parent_task_run_id"] is not None and kind in FINAL
        if len(pids) != wanted and not in_parents_process:
            wrong.append(f"is executed by {pids or 'no process'}")
        if tags != keys and not in_child:  # a run that came to a subflow's wait first has not come to its own again
            wrong.append(f"is tagged with {sorted(tags)} and waits for {sorted(keys)}")
        state = f"{run['state_name']} ({run['state']['message']})"
        return [f"{run['id']} {text}: {state}" for text in wrong]

    def waiting(self) -> Iterable[dict[str, Any]]:
        """The runs that wait, subflow runs too."""
        for run_id in self._given.all_runs():
            run = self._installation.read(run_id)
            if run is not None and run["state_type"] == "PAUSED":
                yield run

    def undelivered(self) -> list[str]:
        """Signals that nobody has decided on, though their run waits or is over; must become empty by itself."""
        waiting = list(self.waiting())
        runs = {run["id"] for run in waiting}
        keys = {key for run in waiting for key in keys_of(run["state"]["state_details"].get("run_input_keyset"))}
        wrong = []
        for signal in self._signals():
            if signal["outcome"] not in _OPEN:
                continue
            target = f"{signal['id']} for {signal['target']} is {signal['outcome']} ({signal['reason']})"
            if signal["outcome"] == "received":
                wrong.append(f"{target}: nobody has looked at it")
            elif signal["key"] in keys or signal["run_id"] in runs:
                wrong.append(f"{target}, and a run waits for it")
            elif signal["run_id"] is not None and self._over(signal["run_id"]):
                wrong.append(f"{target}, and the run is over")
        return wrong

    def untold(self) -> list[str]:
        """Where what the signals say is not what happened, once every run has ended."""
        call = self._given.notes.call
        got = {(heard.token, call(heard.run)) for heard in self._given.notes.heard() if heard.token is not None}
        wrong = []
        for signal in self._signals():
            if signal["id"] in self._given.answers:
                wrong += self._told_otherwise(signal, {one for token, one in got if token == signal["id"]})
            else:
                wrong += self._told_of_nobody(signal)
        for answer in self._given.answers.values():
            taken = answer.accepted and answer.run is not None and (answer.token, call(answer.run)) not in got
            if taken and self._came_through(str(answer.run)):
                wrong.append(f"Prefect accepted {answer}, and the run came to its end without it")
        return wrong

    def _told_otherwise(self, signal: dict[str, Any], receivers: set[str]) -> list[str]:
        """``receivers``: the runs, or calls of subflows, that received the answer."""
        applied = {run["run_id"] for run in signal["runs"] if run["outcome"] == "applied"}
        told = f"{signal['id']} for {signal['target']} is told to be {signal['outcome']} ({signal['reason']})"
        calls = {run_id: self._given.notes.call(run_id) for run_id in applied}
        wrong = [f"{told}, not for {call}, which received it" for call in receivers - set(calls.values())]
        wrong += [
            f"{told}, and {run_id} came to its end without it"
            for run_id, call in calls.items()
            if call not in receivers and self._came_through(run_id) and not self._given.in_vain(run_id, signal["id"])
        ]
        if (signal["outcome"] == "applied") != bool(applied):
            wrong.append(f"{told}, and to be applied to {applied or 'no run'}")
        return wrong

    def badly_ended(self) -> list[str]:
        """Runs that ended as nobody and nothing made them end."""
        wrong = []
        for run in self._given.runs.values():
            found = self._installation.read(run.id)
            if found is None or run.ended_by_hand:
                continue
            kind = found["state_type"]
            if kind == "CRASHED" and run.hurt:
                continue
            if kind in FINAL and not (kind == "COMPLETED" and self._given.notes.ended(run.id)):
                wrong.append(f"{run.id} ended as {found['state_name']} ({found['state']['message']}) by itself")
        return wrong

    def _told_of_nobody(self, signal: dict[str, Any]) -> list[str]:
        """A resume without a signal: somebody must have made it."""
        by_hand = self._given.blank | {one.run for one in self._given.answers.values() if one.signal is None}
        runs = {run["run_id"] for run in signal["runs"] if run["outcome"] == "applied"}
        return [
            f"{signal['id']} is told to be applied to {run_id} by {signal['by']}, and nobody did that"
            for run_id in runs - by_hand
        ]

    def _came_through(self, run_id: str) -> bool:
        """Whether the run went through all of its waits by itself."""
        run = self._given.top(run_id)
        return not run.ended_by_hand and self._given.notes.ended(run.id)

    def _over(self, run_id: str) -> bool:
        run = self._installation.read(run_id)
        return run is None or run["state_type"] in FINAL

    def _signals(self) -> list[dict[str, Any]]:
        sent = [answer.signal for answer in self._given.answers.values() if answer.signal is not None]
        return self._installation.signals(sent, list(self._given.all_runs()))
