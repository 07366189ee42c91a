"""The flow of the stateful test: goes through a plan of waits, and notes all that happens to it in a file.

Copied into the folder of a project: it must not import anything of the tests.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

import sluice


def note(notes: str, **fields: Any) -> None:
    """One line, whole or not at all, behind all others."""
    line = json.dumps({"run": str(flow_run.id), "pid": os.getpid(), **fields}) + "\n"
    descriptor = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def born(pid: int) -> int | None:
    """When the process began (a number that no other process under that pid has); None if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in {"Z", "X"} else int(fields[18])


def begin(notes: str, parent: str | None = None, place: int = 0) -> None:
    """Note this process, and every other one that still executes the same run.

    A subflow run notes its ``parent`` and its ``place`` among the calls that this one makes.
    """
    run = str(flow_run.id)
    lines = [json.loads(line) for line in Path(notes).read_text().splitlines()] if Path(notes).exists() else []
    earlier = {(line["pid"], line["born"]) for line in lines if line["what"] == "begin" and line["run"] == run}
    beside = sorted(pid for pid, then in earlier if pid != os.getpid() and born(pid) == then)
    note(notes, what="begin", born=born(os.getpid()), parent=parent, place=place, beside=beside)


def ask(step: dict[str, Any], notes: str, counts: Counter[str]) -> None:
    """One wait of the plan, and what came of it."""
    options = {name: value for name, value in step.items() if name != "child"}
    name = options["name"]
    counts[name] += 1
    wait = {"wait": name, "nth": counts[name]}
    try:
        answer = sluice.wait_for_signal(**options)
    except sluice.SignalRejected as rejected:
        note(notes, what="rejected", token=rejected.reason, **wait)
    except sluice.SignalTimeout:
        note(notes, what="timeout", **wait)
    else:
        for key, value in answer.items() if "keys" in options else [(None, answer)]:
            note(notes, what="answer", key=key, token=value.get("token"), **wait)


@flow(name="waits-child")
def child(step: dict[str, Any], notes: str, parent: str, place: int) -> None:
    begin(notes, parent, place)
    ask(step, notes, Counter())


@flow(name="waits")
def main(plan: list[dict[str, Any]], notes: str) -> None:
    begin(notes)
    counts: Counter[str] = Counter()
    for place, step in enumerate(plan):
        if step.get("child"):
            child(step, notes, str(flow_run.id), place)
        else:
            ask(step, notes, counts)
    note(notes, what="end")
