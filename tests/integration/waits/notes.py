"""What the flows noted: the processes that executed them, and the answers that they received."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.integration.waits.case_flow import born

WaitOf = tuple[str, str, int]
"""A run's id, the name of its wait, and which of that name it is, from 1."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of one wait, as the flow got it: an answer, a rejection (with its token) or the time-out."""

    wait: WaitOf
    what: str
    key: str | None
    token: str | None

    @property
    def run(self) -> str:
        return self.wait[0]


class Notes:
    """The file, read as far as it is complete each time that something is asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def heard(self) -> Iterator[Heard]:
        """In order."""
        for line in self.lines():
            if line["what"] in {"answer", "rejected", "timeout"}:
                wait = (line["run"], line["wait"], line["nth"])
                yield Heard(wait=wait, what=line["what"], key=line.get("key"), token=line.get("token"))

    def processes(self, run: str) -> list[int]:
        """The living processes that execute the run."""
        begun = {(line["pid"], line["born"]) for line in self._begun(run)}
        return sorted(pid for pid, then in begun if born(pid) == then)

    def all_processes(self) -> list[int]:
        """Those of every run."""
        return sorted({pid for line in self._begun() for pid in [line["pid"]] if born(pid) == line["born"]})

    def beside(self) -> list[tuple[str, int, list[int]]]:
        """Runs that began in one process while another one still executed them: run, process, the others."""
        return [(line["run"], line["pid"], line["beside"]) for line in self._begun() if line["beside"]]

    def children(self, run: str) -> list[str]:
        """The ids of the run's subflow runs."""
        return list(dict.fromkeys(line["run"] for line in self._begun() if line["parent"] == run))

    def call(self, run: str) -> str:
        """What a run has in common with those whose place it took, when its parent was tried again: of a subflow run
        the call, which is known by parent and place; of any other its own id."""
        begun = next((line for line in self._begun(run) if line["parent"] is not None), None)
        return f"{begun['parent']}, call {begun['place']}" if begun is not None else run

    def attempts(self, call: str) -> int:
        """How often the run, or a run of that call of a subflow, was begun."""
        return sum(self.call(line["run"]) == call for line in self._begun())

    def ended(self, run: str) -> bool:
        """Whether the flow came to its end by itself."""
        return any(line["what"] == "end" and line["run"] == run for line in self.lines())

    def _begun(self, run: str | None = None) -> list[dict]:
        return [line for line in self.lines() if line["what"] == "begin" and run in {None, line["run"]}]
