"""Fan-out and fan-in: many items side by side, one bad item among them, and a result that says how it went.

Needs nothing. The bad items are named; the others are done.
"""

from __future__ import annotations

from typing import Any

from prefect import State, flow, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.futures import wait
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from sluice import run_name, visible


def shown_item() -> str:
    """The name of a task's run."""
    return visible(f"square {runtime.task_run.parameters['item']}", 100)


@task(task_run_name=shown_item)
def square(item: str) -> float:
    """One item's work; a text that is no number is a bad item."""
    return float(item) ** 2


@flow(
    name="fan-out",
    flow_run_name=run_name("fan-out"),
    task_runner=ThreadPoolTaskRunner(max_workers=4),  # type: ignore[arg-type] # Prefect's own runner
)
def fan_out(items: list[str] | None = None, least_success_rate: float = 0.5) -> State[dict[str, Any]]:
    """Square each item; the result has the success rate, the bad items and the sum of the good ones.

    Needs nothing. The run fails only if fewer than ``least_success_rate`` (0 to 1) of the items are done.
    """
    todo = items if items is not None else ["1", "2", "three", "4"]
    futures = square.map(todo)
    wait(futures)  # not `result()`, which would raise for the first bad item
    states = [future.state for future in futures]
    good = [state.result() for state in states if state.is_completed()]
    bad = {item: state.message for item, state in zip(todo, states, strict=True) if not state.is_completed()}
    rate = len(good) / len(todo) if todo else 1.0
    rows = [{"item": visible(item), "reason": visible(str(reason), 300)} for item, reason in bad.items()]
    create_table_artifact(rows, key="fan-out-bad-items", description="Items that could not be done")
    named = f"; not done: {', '.join(bad)}" if bad else ""
    message = visible(f"{len(good)} of {len(todo)} items are done ({rate:.0%}){named}", 1000)
    if rate < least_success_rate:
        return Failed(message=message)
    return Completed(message=message, data={"success_rate": rate, "bad": sorted(bad), "sum": sum(good)})


if __name__ == "__main__":
    fan_out()
