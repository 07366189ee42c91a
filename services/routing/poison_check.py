"""A poison check: one event judged in a process of its own, to learn whether it is what ended its routers.

``python -m services.routing.poison_check`` is that process; it reads what to judge from standard input.
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
"""A router that judges one event for so long has ended for all practical purposes."""

log = structlog.get_logger()


async def ends_its_judge(
    event: Event, project: Project, *, home: Path, within_seconds: float = POISON_CHECK_SECONDS
) -> str | None:
    """How the process that judged the event ended, if not by itself; None for an event that is not to blame."""
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
        log.warning("no process can be started to judge an event", event_id=event.id, error=str(error))
        return None
    try:
        await asyncio.wait_for(process.communicate(json.dumps(told).encode()), within_seconds)
    except TimeoutError:
        return f"a process that judged it alone did not end within {within_seconds:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    code = process.returncode or 0
    return f"a process that judged it alone was ended by {signal.Signals(-code).name}" if code < 0 else None


def main() -> None:
    """Judge what standard input holds; how this process ends is the answer."""
    told = json.load(sys.stdin)
    project = parse_project(told["rules"], Path(told["path"]), home=Path(told["home"]))
    evaluate(project.rules, stored_event(told["event"]))


if __name__ == "__main__":
    main()
