"""One role process: runs its parts concurrently, reports, and stops on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
import uvloop

from events.errors import Backpressure, TransientError
from services.common.garbage_collection import search_seldom
from services.common.telemetry import tracing
from services.home.sign_of_life import give_signs, sign_path
from services.operations.reporter import Reporter
from services.store.connection import AsyncRedis

log = structlog.get_logger()

STOP_SECONDS: Final = 4.0
"""How long a part may take to finish, or cleanly abandon, its work, unless it says how long it needs."""
AGAIN_SECONDS: Final = 4.0
"""How long a part that has not ended in time has after a second cancellation."""


class Part(Protocol):
    """A task that runs until it is cancelled, and has a status."""

    async def run(self) -> None:
        """Run until cancelled; on cancellation finish, or cleanly abandon, work under way.

        A part that may take longer than `STOP_SECONDS` has an attribute ``stop_seconds``; it gets no second
        cancellation in that time.
        """

    def status(self) -> Mapping[str, Any]:
        """JSON; ``ready`` (default true) must hold for the role to be ready, ``degraded`` is a sentence."""


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` on uvloop, which reads and writes sockets faster than asyncio's loop."""
    search_seldom()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


async def run_parts(
    role: str,
    parts: Mapping[str, Part],
    *,
    redis: AsyncRedis,
    ready_file: Path | None = None,
    home: Path | None = None,
) -> None:
    """Run ``parts`` until SIGTERM or SIGINT, or until one of them fails; then end the others.

    ``ready_file`` is a file that says whether the role is ready; in ``home`` the process gives its sign of life. A
    part's failure is raised: the process ends with it, and the role's supervisor starts another.
    """
    tracing.set_up(os.environ, role=role)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    statuses = {name: part.status for name, part in parts.items()}
    reporter = Reporter(role=role, redis=redis, parts=statuses, ready_file=ready_file)
    tasks = {
        asyncio.create_task(part.run(), name=name): float(getattr(part, "stop_seconds", STOP_SECONDS))
        for name, part in parts.items()
    }
    reporting = {asyncio.create_task(reporter.run(), name="report")}
    if home is not None:
        reporting.add(asyncio.create_task(give_signs(sign_path(home, os.getpid())), name="sign of life"))
    waiting = asyncio.create_task(stopped.wait(), name="signals")
    log.info("role started", parts=sorted(parts))
    ended, _ = await asyncio.wait({*tasks, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    stops = (_stop(task, within_seconds=seconds) for task, seconds in tasks.items())
    late = [task for task, ended_in_time in zip(tasks, await asyncio.gather(*stops), strict=True) if not ended_in_time]
    for telling in reporting:
        telling.cancel()
    await asyncio.wait(reporting, timeout=1)
    if stopped.is_set():
        with contextlib.suppress(TransientError, Backpressure, TimeoutError):
            await reporter.say_goodbye()
    for one in late:
        log.warning("a part did not end in time", part=one.get_name(), seconds=tasks[one] + AGAIN_SECONDS)
    for task in ended - {waiting}:
        error = None if task.cancelled() else task.exception()
        log.error("a part ended", part=task.get_name(), exc_info=error)
        raise RuntimeError(f"the part {task.get_name()} of {role} ended: {error}") from error
    log.info("role stopped")


async def _stop(task: asyncio.Task[None], *, within_seconds: float) -> bool:
    """Cancel ``task``, once more when its time is over; false when it has not ended even then."""
    for seconds in (within_seconds, AGAIN_SECONDS):
        # Python 3.11's asyncio.wait_for, which redis-py writes through, can swallow one cancellation.
        task.cancel()
        ended, _ = await asyncio.wait({task}, timeout=seconds)
        if ended:
            return True
    return False
