"""Everything that can happen to runs that wait, in any order, as a state machine of hypothesis."""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.integration.waits.given import Answer, Given, Plan, Run
from tests.integration.waits.installation import ON_LOST, Installation, kill, slot_of
from tests.integration.waits.judge import FINAL, Judge
from tests.integration.waits.notes import Notes
from tests.support.waiting import wait_until

MOST_RUNS = 6
_SETTLE_SECONDS = 90.0
_ROUNDS = 12
"""More than the waits and crashes that one run can still have before it ends."""

STEPS: Counter[str] = Counter()
"""How often each rule was followed, in all examples of this process."""

_numbers = itertools.count(1)

KEYS = ("PO-7 a", "po-7 a", "grün/東", "z")


def _step(kind: str, key: int, other: int) -> dict[str, Any]:
    first, second = KEYS[key], KEYS[other] if other != key else KEYS[(key + 1) % len(KEYS)]
    one = {"key": first}
    several = {"keys": [first, second]}
    return {
        "pause": one,
        "suspend": {**one, "suspend": True},
        "subflow": {**one, "child": True},
        "any": {**several, "need": "any"},
        "all": {**several, "need": "all"},
        "timeout": {**one, "timeout": 2.0},
        "suspended timeout": {**one, "timeout": 2.0, "suspend": True},
    }[kind]


_kinds = st.sampled_from(["pause", "pause", "suspend", "subflow", "all", "any", "timeout", "suspended timeout"])
_places = st.integers(0, len(KEYS) - 1)
_plans = st.lists(st.builds(_step, _kinds, _places, _places), min_size=1, max_size=3)
_chosen = st.integers(0, MOST_RUNS - 1)
_patient = st.sampled_from([True, True, False])


class WaitsInAnyOrder(RuleBasedStateMachine):
    """One example: some runs, and what is done to them and to who executes them and brings them their answers."""

    def __init__(self, installation: Installation, directory: Path) -> None:
        super().__init__()
        self.installation = installation
        self.tag = f"e{next(_numbers)}"
        self.given = Given(Notes(directory / f"{self.tag}.jsonl"))
        self.judge = Judge(installation, self.given)
        self.history: list[str] = []
        self.failed = False
        self._tokens = itertools.count(1)

    # What is done

    @initialize(plans=st.lists(_plans, min_size=2, max_size=4))
    def begin(self, plans: list[Plan]) -> None:
        for number, plan in enumerate(plans):
            self._start(plan, ON_LOST[number % len(ON_LOST)])

    @rule(plan=_plans, on_lost=st.sampled_from(ON_LOST))
    def start(self, plan: Plan, on_lost: str) -> None:
        if len(self.given.runs) < MOST_RUNS:
            self._start(plan, on_lost)

    @rule(chosen=_chosen, patient=_patient)
    def answer_run(self, chosen: int, patient: bool) -> None:
        with self._doing("answer_run", chosen, patient):
            self._send(run=self._waiting_of(self._run(chosen, patient)))

    @rule(place=_places, one=st.booleans())
    def answer_key(self, place: int, one: bool) -> None:
        with self._doing("answer_key", place, one):
            self._send(key=self._key(KEYS[place]), one=one)

    @rule(chosen=_chosen)
    def answer_what_it_waits_for(self, chosen: int) -> None:
        with self._doing("answer_what_it_waits_for", chosen):
            run = self._run(chosen, patient=True)
            tags = (self.installation.read(self._waiting_of(run)) or {}).get("tags", [])
            for tag in sorted(tags)[:1]:
                self._send(key=tag.removeprefix("awaits:"))

    @rule(place=st.integers(0, 30))
    def send_again(self, place: int) -> None:
        """The same signal under the same id."""
        with self._doing("send_again", place):
            known = [answer for answer in self.given.answers.values() if answer.signal]
            if known:
                self._hand_in(known[place % len(known)])

    @rule(chosen=_chosen, patient=_patient)
    def reject(self, chosen: int, patient: bool) -> None:
        with self._doing("reject", chosen, patient):
            self._send(run=self._waiting_of(self._run(chosen, patient)), what="rejected")

    @rule(chosen=_chosen, with_input=st.booleans())
    def resume_by_hand(self, chosen: int, with_input: bool) -> None:
        """The Resume button of Prefect's UI."""
        with self._doing("resume_by_hand", chosen, with_input):
            run_id = self._waiting_of(self._run(chosen, patient=True))
            if not with_input:
                self.given.blank.add(run_id)
                self.installation.resume(run_id, None)
                return
            answer = Answer(token=self._token(), what="answer", run=run_id)
            self.given.answers[answer.token] = answer  # before it may be heard
            accepted = self.installation.resume(run_id, {"token": answer.token})
            self.given.answers[answer.token] = Answer(**{**vars(answer), "accepted": accepted})

    @rule(
        chosen=_chosen,
        patient=_patient,
        how=st.sampled_from(["cancel", "CANCELLED", "CANCELLED forced", "COMPLETED forced", "FAILED forced", "delete"]),
    )
    def end_by_hand(self, chosen: int, patient: bool, how: str) -> None:
        ended = sum(run.ended_by_hand for run in self.given.runs.values())
        if len(self.history) < 10 * (ended + 1):
            return  # else none would be left for the rest
        with self._doing("end_by_hand", chosen, patient, how):
            run = self._run(chosen, patient)
            run.ended_by_hand = True
            if how == "cancel":
                self.installation.cancel(run.id)
            elif how == "delete":
                run.deleted = True
                self.installation.delete(run.id)
            else:
                kind, _, forced = how.partition(" ")
                self.installation.set_state(run.id, kind, force=bool(forced), message="set by hand")

    @rule(
        chosen=_chosen,
        patient=_patient,
        how=st.sampled_from(["AwaitingRetry", "AwaitingRetry forced", "Scheduled forced", "Running forced"]),
    )
    def set_going_by_hand(self, chosen: int, patient: bool, how: str) -> None:
        with self._doing("set_going_by_hand", chosen, patient, how):
            run = self._run(chosen, patient)
            name, _, forced = how.partition(" ")
            if name == "Running" and not self._waits_in_process(run):
                return  # who says so of a run that nobody executes is wrong
            kind = "RUNNING" if name == "Running" else "SCHEDULED"
            if self.installation.set_state(run.id, kind, force=bool(forced), name=name, message="set by hand"):
                run.ended_by_hand = False

    @rule(chosen=_chosen, patient=_patient, what=st.sampled_from(["its process", "its process", "its slot"]))
    def kill(self, chosen: int, patient: bool, what: str) -> None:
        with self._doing("kill", chosen, patient, what):
            for pid in self.given.notes.processes(self._run(chosen, patient).id):
                victim = pid if what == "its process" else slot_of(pid)
                if victim is not None:
                    self._hurt()
                    kill(victim)

    @rule(
        chosen=_chosen,
        patient=_patient,
        role=st.sampled_from(["executor", "executor", "resumer"]),
        how=st.sampled_from(["killed", "killed with its children", "stopped"]),
    )
    def role_ends(self, chosen: int, patient: bool, role: str, how: str) -> None:
        """It is started again by the next rule that waits for something."""
        with self._doing("role_ends", chosen, patient, role, how):
            self._run(chosen, patient)
            number = signal.SIGTERM if how == "stopped" else signal.SIGKILL
            if role == "executor" and how != "stopped":
                self._hurt()
            self.installation.signal_role(role, number, with_children=how.endswith("children"))

    @rule()
    def come_to_rest(self) -> None:
        with self._doing("come_to_rest"):
            self._settle()

    @invariant()
    def nothing_from_nowhere_and_nothing_twice(self) -> None:
        self._refuse(self.given.unfounded())

    def teardown(self) -> None:
        try:
            if not self.failed and self.given.runs:
                self._to_the_end()
        finally:
            self._leave_nothing()
            self.given.notes.path.with_suffix(".history").write_text("\n".join(self.history))

    # How

    def _start(self, plan: Plan, on_lost: str) -> None:
        with self._doing("start", plan, on_lost):
            plan = [self._own_keys(step) for step in plan]
            run = self.installation.create(on_lost, plan=plan, notes=str(self.given.notes.path))
            self.given.runs[run] = Run(run, plan)
            self.history[-1] += f" -> {run}"

    def _own_keys(self, step: dict[str, Any]) -> dict[str, Any]:
        keys = [self._key(key) for key in step.get("keys", [step.get("key")])]
        own: dict[str, Any] = {"keys": keys} if "keys" in step else {"key": keys[0]}
        return {**step, **own, "name": "-".join(keys)}

    def _key(self, key: str) -> str:
        return f"{self.tag} {key}"

    def _token(self) -> str:
        return f"{self.tag}-{next(self._tokens)}"

    def _run(self, chosen: int, patient: bool) -> Run:
        """The chosen one; patiently: when it waits or has ended."""
        run = list(self.given.runs.values())[chosen % len(self.given.runs)]
        if patient:
            self._until_none(lambda: self.judge.moving(run))
        return run

    def _waiting_of(self, run: Run) -> str:
        """The id of the run, or of its subflow run that waits."""
        for child in self.given.notes.children(run.id):
            found = self.installation.read(child)
            if found is not None and found["state_type"] == "PAUSED":
                return child
        return run.id

    def _waits_in_process(self, run: Run) -> bool:
        state = (self.installation.read(run.id) or {}).get("state") or {}
        return state.get("type") == "PAUSED" and not state["state_details"].get("pause_reschedule")

    def _send(self, *, run: str | None = None, key: str | None = None, one: bool = False, what: str = "answer") -> None:
        token = self._token()
        self.given.answers[token] = Answer(token=token, what=what, run=run, key=key, signal=token, one=one)
        self._hand_in(self.given.answers[token])

    def _hand_in(self, answer: Answer) -> None:
        message: dict[str, Any] = {"run_id": answer.run} if answer.run else {"key": answer.key}
        if answer.what == "rejected":
            message |= {"action": "reject", "reason": answer.token}
        else:
            message |= {"input": {"token": answer.token}}
        self.installation.send(id=answer.signal, deliver="one" if answer.one else "all", **message)

    def _hurt(self) -> None:
        for run in self.given.runs.values():
            run.hurt = True

    def _settle(self) -> None:
        def moving() -> list[str]:
            return [text for run in self.given.runs.values() for text in self.judge.moving(run)]

        self._until_none(lambda: moving() or self.judge.undelivered())
        self._refuse(self.given.unfounded() + self.judge.badly_ended())

    def _until_none(self, wrong: Callable[[], list[str]]) -> None:
        last: list[str] = []

        def none() -> bool:
            last[:] = wrong()
            return not last

        self.installation.up()
        try:
            wait_until(none, within_seconds=_SETTLE_SECONDS)
        except AssertionError:
            self._refuse(last)

    def _to_the_end(self) -> None:
        """Answer what waits, start again what crashed, until every run has ended; then nothing may be missing."""
        with self._doing("to the end"):
            for _ in range(_ROUNDS):
                self._settle()
                open_ones = [*self._answer_all(), *self._restart_crashed()]
                if not open_ones:
                    break
            self._refuse(open_ones)
            self._refuse(self.judge.untold())

    def _answer_all(self) -> Iterator[str]:
        for run in self.judge.waiting():
            self._send(run=run["id"])
            yield f"{run['id']} still waits"

    def _restart_crashed(self) -> Iterator[str]:
        for run in self.given.runs.values():
            found = self.installation.read(run.id)
            if found is not None and found["state_type"] == "CRASHED" and not run.ended_by_hand:
                self.installation.set_state(run.id, "SCHEDULED", force=True, name="AwaitingRetry")
                yield f"{run.id} has crashed again"

    def _refuse(self, wrong: list[str]) -> None:
        if wrong:
            self.failed = True
            told = [*wrong, "after:", *self.history, "noted:", *map(str, self.given.notes.lines())]
            for run_id in self.given.all_runs():
                if any(run_id in text for text in wrong):
                    told += [f"states of {run_id}:", *self.installation.states(run_id)]
            self.given.notes.path.with_suffix(".wrong").write_text("\n".join(told))
            raise AssertionError("\n".join(told))

    def _leave_nothing(self) -> None:
        """What a broken example leaves must not disturb the next one."""
        for run_id in self.given.all_runs():
            found = self.installation.read(run_id)
            if found is not None and found["state_type"] not in FINAL:
                self.installation.set_state(run_id, "CANCELLED", force=True)
        for pid in self.given.notes.all_processes():
            kill(pid)

    def _doing(self, name: str, *arguments: Any) -> _Doing:
        STEPS[name] += 1
        self.history.append(f"{datetime.now(UTC):%H:%M:%S.%f} {name}({', '.join(map(repr, arguments))})")
        return _Doing(self)


class _Doing:
    """Remembers that an example has failed: its end is then not judged, too."""

    def __init__(self, machine: WaitsInAnyOrder) -> None:
        self._machine = machine

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._machine.failed = True
