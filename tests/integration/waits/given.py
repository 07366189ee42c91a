"""What one example did: the runs that it started, and the answers that it gave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.integration.waits.notes import Heard, Notes

Plan = list[dict[str, Any]]
"""The waits of a run in order, as `wait_for_signal` takes them; with ``child`` in a subflow."""


@dataclass
class Run:
    """One run that the example started."""

    id: str
    plan: Plan
    ended_by_hand: bool = False
    """Somebody set it to a final state, cancelled or deleted it, and did not set it going again since."""
    deleted: bool = False
    hurt: bool = False
    """Something was killed while the run was there: it may have crashed."""

    def keys(self, wait: str) -> set[str]:
        """The keys of the wait of that name."""
        return {key for step in self.plan if step["name"] == wait for key in step.get("keys", [step.get("key")]) if key}

    def needs_all(self, wait: str) -> bool:
        return any(step.get("need") == "all" for step in self.plan if step["name"] == wait)

    def has_timeout(self, wait: str) -> bool:
        return any(step.get("timeout") for step in self.plan if step["name"] == wait)


@dataclass(frozen=True)
class Answer:
    """One answer that was given: by a signal (which has the token as its id), or by hand in Prefect (``signal`` None).

    ``what`` is what a flow that gets it notes. ``accepted``: Prefect took it (by hand only).
    """

    token: str
    what: str
    run: str | None = None
    key: str | None = None
    signal: str | None = None
    one: bool = False
    accepted: bool = False

    def fits(self, heard: Heard, keys: set[str], *, same_call: bool) -> bool:
        """Whether the wait may have got it, which is one for these keys; ``same_call``: of the call it was given to."""
        if self.what != heard.what:
            return False
        return same_call or (self.key in keys and heard.key in {None, self.key})


@dataclass
class Given:
    """All of it, by id and by token."""

    notes: Notes
    runs: dict[str, Run] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    blank: set[str] = field(default_factory=set)
    """Runs that somebody resumed in Prefect without an input."""

    def family(self, run: Run) -> list[str]:
        """The ids of the run and its subflow runs."""
        return [run.id, *self.notes.children(run.id)]

    def top(self, run_id: str) -> Run:
        """The run that was started, for its own id or that of a subflow run."""
        return next(run for run in self.runs.values() if run_id in self.family(run))

    def all_runs(self) -> Iterable[str]:
        """The ids of all runs, subflow runs too."""
        return [run_id for run in self.runs.values() for run_id in self.family(run)]

    def in_vain(self, run_id: str, token: str) -> bool:
        """Whether the answer may rightly have been applied to the run without being received.

        A run that crashes is asked again what was rejected before. And an answer may have been one of several that a
        wait needed and did not all get.
        """
        run, answer = self.top(run_id), self.answers[token]
        call = self.notes.call(run_id)
        if answer.what == "rejected":
            return self.notes.attempts(call) > 1
        return any(
            self.notes.call(heard.run) == call
            and heard.what in {"rejected", "timeout"}
            and run.needs_all(heard.wait[1])
            and answer.key in run.keys(heard.wait[1])
            for heard in self.notes.heard()
        )

    def unfounded(self) -> list[str]:
        """What the flows got that nobody gave them, or gave for something else, or that they got twice; at any time."""
        wrong: list[str] = []
        waits_of: dict[tuple[str | None, str], set[object]] = {}
        tokens_of: dict[object, set[str | None]] = {}
        calls_of: dict[str, set[str]] = {}
        blank = {self.notes.call(run_id) for run_id in self.blank}
        for heard in self.notes.heard():
            run, call = self.top(heard.run), self.notes.call(heard.run)
            name, wait = heard.wait[1], (call, *heard.wait[1:])
            if heard.what == "timeout":
                if not run.has_timeout(name):
                    wrong.append(f"{heard}: the wait has no time-out")
                continue
            if heard.token is None and heard.what == "answer":
                if call not in blank:
                    wrong.append(f"{heard}: nobody gave an empty answer")
                continue
            answer = self.answers.get(heard.token or "")
            same_call = answer is not None and answer.run is not None and self.notes.call(answer.run) == call
            if answer is None or not answer.fits(heard, run.keys(name), same_call=same_call):
                wrong.append(f"{heard}: not what was given: {answer}")
                continue
            waits_of.setdefault((heard.token, call), set()).add(wait)
            if heard.what == "answer":
                tokens_of.setdefault((wait, heard.key), set()).add(heard.token)
            if answer.one:
                calls_of.setdefault(answer.token, set()).add(call)
        wrong += [f"{token} answered several waits: {waits}" for token, waits in waits_of.items() if len(waits) > 1]
        wrong += [f"{wait} got several answers: {tokens}" for wait, tokens in tokens_of.items() if len(tokens) > 1]
        wrong += [f"{token}, for one run, went to {runs}" for token, runs in calls_of.items() if len(runs) > 1]
        wrong += [f"run {run} is in process {pid} and in {pids}" for run, pid, pids in self.notes.beside()]
        return wrong
