"""What must be true at the end of a fault injection, told from the journal and from Prefect alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.store.dead_letters import DeadLetters, LetterQuery
from services.store.events.journal import STREAM, Broken, parse_entry
from tests.support.faults import Installation
from tests.support.faults_answers import RULE, AnswerVerdict, judge_answers, wanted
from tests.support.faults_load import Load

Pair = tuple[str, str]

_LOST_PREFECT = tuple(
    f"Flow run encountered an exception: {error}"
    for error in ("RemoteProtocolError", "ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "WriteError")
)


@dataclass
class Verdict:
    """``wanted`` and ``found``: pairs of event id and rule. ``wrong`` has a sentence for each broken promise.

    ``executed``: how often the runs that are executed were, by number; a run that is lost with its executor is
    started again. ``letters``: dead letters by their codes. ``cut_off``: runs that were executed and failed because
    Prefect was away for longer than Prefect's client in them tries, which is no fault of who started them.
    """

    wanted: Counter[Pair] = field(default_factory=Counter)
    found: Counter[Pair] = field(default_factory=Counter)
    executed: Counter[int] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    cut_off: int = 0
    begun: int = 0
    """Processes that began a run that waits."""
    answers: AnswerVerdict = field(default_factory=AnswerVerdict)
    wrong: list[str] = field(default_factory=list)


async def judge(installation: Installation, load: Load, *, letters: Collection[str] = ()) -> Verdict:
    """Hold the journal against what was sent, and Prefect against the journal.

    Dead letters are wrong unless their codes are among ``letters``; with some, there may be garbage in the journal.
    """
    rows: Any = await installation.redis.xrange(STREAM)
    rows = [row for row in rows if row[0].decode() not in installation.older]
    events = [event for _, fields in rows if (event := _event(fields, garbage=bool(letters))) is not None]
    verdict = Verdict()
    journalled = Counter(_number(event) for event in events)
    verdict.wrong += [f"{n} ({load.sure[n]}) was taken and never came" for n in load.sure if not journalled[n]]
    sent = load.sure | load.unsure
    for n, count in journalled.items():
        if n not in sent:
            verdict.wrong.append(f"{n} was never sent")
        elif count > 1:
            verdict.wrong.append(f"{n} ({sent[n]}) was journalled {count} times")
    for event in events:
        for rule in _rules(event):
            verdict.wanted[event["id"], rule] += 1
    verdict.executed = Counter({int(mark.name): len(mark.read_text().splitlines()) for mark in _marks(installation)})
    runs = await installation.runs()
    for run in runs:
        verdict.found[_tag(run, "event"), _tag(run, "rule")] += 1
        verdict.wrong += _fault_of_execution(run, verdict.executed)
        verdict.cut_off += _was_cut_off(run)
    asking = [run for run in runs if _tag(run, "rule") == RULE]
    cut_off = {run["id"] for run in asking if _was_cut_off(run)}
    verdict.answers = await judge_answers(installation.redis, installation.answers, asking, cut_off=cut_off)
    verdict.wrong += verdict.answers.wrong
    verdict.begun, beside = _processes(installation.processes)
    verdict.wrong += beside
    async for letter in DeadLetters(installation.redis).walk(LetterQuery()):
        if letter.id in installation.older:
            continue
        verdict.letters[letter.code] += 1
        if letter.code not in letters:
            verdict.wrong.append(f"a dead letter: {letter.code}: {letter.reason}")
    verdict.wrong += [f"{pair} has no run" for pair in verdict.wanted - verdict.found]
    verdict.wrong += [f"{pair} has {count} run(s) too many" for pair, count in (verdict.found - verdict.wanted).items()]
    return verdict


def _event(fields: Mapping[bytes, bytes], *, garbage: bool) -> dict[str, Any] | None:
    entry = parse_entry(b"0-0", fields)
    if garbage and (b"listener" not in fields or isinstance(entry, Broken) or entry.replay):  # replay: it was damaged
        return None
    event: dict[str, Any] = json.loads(fields[b"event"])
    return event


def _number(event: dict[str, Any]) -> int:
    if event["type"] == "sluice.file.arrived":
        return int(Path(event["data"]["path"]).stem)
    return int(event["data"]["n"])


def _rules(event: dict[str, Any]) -> list[str]:
    """The rules of `tests.support.faults.PROJECT`, said once more in other words."""
    if event["type"] == "sluice.file.arrived":
        return ["file"]
    n = event["data"]["n"]
    by_step = [rule for rule, step in (("third", 3), ("tenth", 10)) if n % step == 0]
    return ["every", *by_step, *([RULE] if wanted(n) else [])]


def _fault_of_execution(run: dict[str, Any], executed: Counter[int]) -> list[str]:
    if _tag(run, "rule") not in {"tenth", RULE}:
        return []
    if run["state_type"] != "COMPLETED" and not _was_cut_off(run):
        return [f"the run {run['id']} is {run['state_name']}: {run['state']['message']}"]
    if _tag(run, "rule") == RULE or executed[run["parameters"]["n"]]:
        return []
    return [f"the run {run['id']} is {run['state_name']} and was not executed"]


def _was_cut_off(run: dict[str, Any]) -> bool:
    said = (run["state"] or {}).get("message") or ""
    return run["state_type"] == "FAILED" and said.startswith(_LOST_PREFECT)


def _marks(installation: Installation) -> list[Path]:
    return list(installation.marks.iterdir())


def _processes(notes: Path) -> tuple[int, list[str]]:
    """How many processes began a run that waits, and which of them did while another one still executed it."""
    lines = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
    beside = [f"{line['run']} began in {line['pid']} beside {line['beside']}" for line in lines if line["beside"]]
    return len(lines), beside


def _tag(run: dict[str, Any], name: str) -> str:
    return next((tag.removeprefix(f"{name}:") for tag in run["tags"] if tag.startswith(f"{name}:")), "-")
