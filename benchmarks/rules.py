"""How many events a second the rules judge, in one process: ``python -m benchmarks.rules [--seconds 2] [--json]``.

Goals: 20 rules, each with globs and a `when`, at 20,000 events a second; 500 such rules at 2,000. Each number of rules
is measured in three settings: each event's type is that of one rule; every rule's globs match every event, so that each
`when` is evaluated (and the value that it failed with is told); and no type ever comes again, so that nothing that was
remembered of a type helps.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from events.event import Event
from events.rule import Rule, RuleSet, evaluate
from events.rule_model import RuleSpec

GOALS = {20: 20_000, 500: 2_000}


def rules(count: int, *, same_type: bool) -> RuleSet:
    return RuleSet(
        Rule(
            RuleSpec.model_validate(
                {
                    "name": f"rule-{number}",
                    "on": "order.*" if same_type else f"kind{number}.*",
                    "source": "files:*",
                    "subject": "*.csv",
                    "when": f"event.data.size > {number} and event.data.name is string",
                    "run": "ingest-file/default",
                    "parameters": {"path": "{{ event.data.path }}"},
                    "run_name": "ingest {{ event.data.name }}",
                }
            )
        )
        for number in range(count)
    )


def event(number: int, type_: str, size: int) -> Event:
    data = {"watch": "inbox", "path": f"/inbox/{number}.csv", "name": f"{number}.csv", "size": size, "mtime": 1.5}
    now = datetime.now(UTC)
    return Event(id=str(number), source="files:inbox", type=type_, subject=f"{number}.csv", time=now, data=data)


def rate(compiled: RuleSet, events: Sequence[Event], seconds: float) -> float:
    for one in events[:200]:
        evaluate(compiled, one)
    done = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        for one in events:
            evaluate(compiled, one)
        done += len(events)
    return done / elapsed


def measure(count: int, seconds: float) -> list[dict[str, Any]]:
    own, same = rules(count, same_type=False), rules(count, same_type=True)
    settings = {
        "one rule's type each": (own, [event(n, f"kind{n % min(count, 50)}.made", 10_000) for n in range(1000)]),
        "all globs match, no `when` holds": (same, [event(n, "order.made", 0) for n in range(1000)]),
        "types never come again": (own, [event(n, f"kind{n % count}.{n}", 10_000) for n in range(20_000)]),
    }
    rows = []
    for setting, (compiled, events) in settings.items():
        found = rate(compiled, events, seconds)
        rows.append({"rules": count, "setting": setting, "events_per_second": round(found), "goal": GOALS[count]})
    return rows


def memory(count: int) -> float:
    """What the rules hold in MiB after events of 1,000 types."""
    tracemalloc.start()
    compiled = rules(count, same_type=False)
    for number in range(1000):
        evaluate(compiled, event(number, f"kind{number % count}.{number}", 1))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each setting is measured")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    options = parser.parse_args(arguments)
    rows = [row for count in GOALS for row in measure(count, options.seconds)]
    held = {count: round(memory(count), 1) for count in GOALS}
    if options.json:
        print(json.dumps({"rates": rows, "memory_mib": held}, indent=2))
        return 0
    print(f"{'rules':>5}  {'events/s':>9}  {'goal':>6}  setting")
    for row in rows:
        print(f"{row['rules']:>5}  {row['events_per_second']:>9,}  {row['goal']:>6,}  {row['setting']}")
    for count, mebibytes in held.items():
        print(f"{count} rules hold {mebibytes} MiB after events of 1,000 types")
    return 0


if __name__ == "__main__":
    sys.exit(main())
