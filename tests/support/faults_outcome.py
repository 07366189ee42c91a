"""Waits until nothing is under way any more after a fault injection, and writes down what came of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from tests.support.faults import Installation
from tests.support.faults_answers import Answers
from tests.support.faults_check import Verdict, judge
from tests.support.faults_load import Load


async def at_rest(installation: Installation, within_seconds: float) -> float:
    """Return once nothing waits, or when ``within_seconds`` bring nothing on; how many seconds that took."""
    began = time.monotonic()
    deadline = began + within_seconds
    fewest: float = float("inf")
    while (waiting := await installation.waiting()) and time.monotonic() < deadline:
        if waiting < fewest:
            fewest, deadline = waiting, time.monotonic() + within_seconds
        await asyncio.sleep(1)
    return time.monotonic() - began


async def settled(installation: Installation, load: Load, within_seconds: float) -> Verdict:
    """The verdict once it is good, or the last one when ``within_seconds`` bring nothing on; a good one must stay good.

    Prefect is asked for its runs only when nothing waits any more: reading thousands of them would hold up the rest.
    """
    await at_rest(installation, within_seconds)
    deadline = time.monotonic() + within_seconds
    good_since: float | None = None
    while True:
        asked = time.monotonic()
        verdict = await judge(installation, load)
        now = time.monotonic()
        good_since = (good_since or now) if not verdict.wrong else None
        if now > deadline or (good_since is not None and now - good_since > 3):
            return verdict
        await asyncio.sleep(max(0.5, 2 * (now - asked)))


def table(facts: dict[str, object], installation: Installation, load: Load, answers: Answers, verdict: Verdict) -> str:
    """What was sent, what was broken and what came of it."""
    sent = Counter(load.sure.values())
    missing, extra = (verdict.wanted - verdict.found).total(), (verdict.found - verdict.wanted).total()
    lines = [
        "| what | how often |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        *(f"| events taken by: {name} | {count} |" for name, count in sorted(sent.items())),
        f"| sent again on purpose, under the same id | {load.again.total()} |",
        f"| sent without knowing whether it was taken (with pub/sub under faults) | {len(load.unsure)} |",
        *(f"| fault: {name} | {count} |" for name, count in sorted(installation.faults.items())),
        f"| flow runs wanted, found | {verdict.wanted.total()}, {verdict.found.total()} |",
        f"| runs missing, runs too many | {missing}, {extra} |",
        f"| runs executed, executions in all | {len(verdict.executed)}, {verdict.executed.total()} |",
        f"| of these, failed as Prefect was away for longer than a run's own client tries | {verdict.cut_off} |",
        f"| runs that waited and came to their end | {verdict.answers.waited} |",
        f"| processes that began these runs, each when no other one executed the run | {verdict.begun} |",
        f"| answers wanted, received | {verdict.answers.wanted}, {verdict.answers.received.total()} |",
        f"| answers taken by: {', '.join(sorted(answers.ways))} | {', '.join(map(str, _by_name(answers.ways)))} |",
        f"| dead letters | {verdict.letters.total()} |",
        f"| promises broken | {len(verdict.wrong)} |",
    ]
    return "\n".join(lines)


def _by_name(counts: Counter[str]) -> list[int]:
    return [counts[name] for name in sorted(counts)]
