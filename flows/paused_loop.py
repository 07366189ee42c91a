"""A loop that pauses on its way and goes on from there, with what it has done.

Needs nothing. ``python flows/paused_loop.py`` pauses after 3 of 10 items; resume it with ``sluice runs resume RUN``,
with a message that names its key, or in the Prefect UI.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast
from uuid import UUID

from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import INPUTS, RUN_ID
from prefect.states import Completed

from sluice import run_name, visible, wait_for_signal


@task(persist_result=True, cache_policy=INPUTS + RUN_ID)
def process(item: str) -> dict[str, str]:
    """One item's work. The result is kept: when the flow starts again from its top, the item is not done again."""
    get_run_logger().info("processing %s", visible(str(item)))
    return {"item": item, "sha256": hashlib.sha256(item.encode()).hexdigest()}


@flow(name="paused-loop", flow_run_name=run_name("paused loop {key}"))
def paused_loop(
    items: list[str] | None = None,
    pause_after: int = 3,
    key: str = "paused-loop",
    suspend: bool = False,
    timeout_seconds: float = 86_400,
) -> State[list[dict[str, str]]]:
    """Process the items (ten of them by default), waiting for a signal once ``pause_after`` are done.

    With ``suspend`` no process is kept while the run waits: it starts again from the top, and passes over the items
    that it finished before, because their results are kept. Needs nothing.
    """
    todo = items if items is not None else [f"item {number}" for number in range(1, 11)]
    progress = cast("UUID", create_progress_artifact(0.0, description=f"{len(todo)} items"))
    done: list[dict[str, str]] = []
    for number, item in enumerate(todo, start=1):
        done.append(process(item))
        update_progress_artifact(progress, progress=100 * number / len(todo))
        if number == pause_after and number < len(todo):
            answer: dict[str, Any] = wait_for_signal(key, timeout=timeout_seconds, suspend=suspend, name="pause")
            get_run_logger().info(
                "going on after %s of %s items: %s", number, len(todo), visible(str(answer or "no input"))
            )
    shown = [one | {"item": visible(one["item"])} for one in done]
    create_table_artifact(shown, key="paused-loop", description="What the loop has done")
    return Completed(message=f"{len(done)} of {len(todo)} items are done", data=done)


if __name__ == "__main__":
    paused_loop()
