"""The poison check: evaluates one event in a process of its own, to learn whether the event ended its routers.

``python -m services.routing.poison_check`` is that process; it reads event and rules from standard input.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Final

import structlog

from config.project import Project, parse_project
from config.settings import CHECKOUT
from events.event import Event, stored_event
from events.rule import evaluate

POISON_CHECK_SECONDS: Final = 30.0
"""Time limit of the evaluation: a router that needs longer for one event has hung."""

log = structlog.get_logger()


async def end_of_evaluation(
    event: Event, project: Project, *, home: Path, within_seconds: float = POISON_CHECK_SECONDS
) -> str | None:
    """Return how the process that evaluated the event ended, None if it ended by itself."""
    told = {
        "rules": project.text, "path": str(project.path), "home": str(home), "event": json.loads(event.to_json())
    }  # fmt: skip
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.routing.poison_check",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=CHECKOUT,
        )
    except OSError as error:
        log.warning("no process can be started for a poison check", event_id=event.id, error=str(error))
        return None
    try:
        await asyncio.wait_for(process.communicate(json.dumps(told).encode()), within_seconds)
    except TimeoutError:
        return f"a process that evaluated only this event did not end within {within_seconds:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    code = process.returncode or 0
    return f"a process that evaluated only this event was ended by {signal.Signals(-code).name}" if code < 0 else None


def main() -> None:
    """Evaluate the event on standard input; the way this process ends is the result."""
    told = json.load(sys.stdin)
    project = parse_project(told["rules"], Path(told["path"]), home=Path(told["home"]))
    evaluate(project.rules, stored_event(told["event"]))


if __name__ == "__main__":
    main()
