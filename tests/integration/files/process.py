"""A listener and an archiver as a process of their own: ``python -m tests.integration.files.process SPEC``.

SPEC is JSON: ``redis`` (URL), ``watches`` (name to source), ``settings`` and, to die by SIGKILL, ``kill_at`` (a
checkpoint's name) with ``after`` (how often it is passed before); the process becomes the ``user``, if one is given.
Its statuses are kept at ``test:status:PID``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from config.logs import configure_logging
from config.settings import FileSettings, HistorySettings, JournalSettings, LogSettings, RedisSettings
from config.sources import FilesSource
from services.listeners.files.archiving.archiver import FileArchiver
from services.listeners.files.listener import FilesListener
from services.store.connection import connect
from services.store.events.finished_events import FinishedEvents
from services.store.files.ledger import Ledger
from services.store.files.returns import FileReturns
from services.store.lease import Lease


def _killer(spec: dict[str, Any]) -> Callable[[str], None]:
    left = spec.get("after", 0)

    def checkpoint(name: str) -> None:
        nonlocal left
        if name != spec.get("kill_at"):
            return
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    return checkpoint


def become(user: int) -> None:
    """Another user, once everything is imported: the interpreter may lie where that one cannot read."""
    import encodings.ascii
    import encodings.idna  # noqa: F401 - looked up by name, later

    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


async def main(spec: dict[str, Any]) -> None:
    redis = connect(spec["redis"], RedisSettings())
    settings = FileSettings(**spec["settings"])
    ledger = Ledger(redis, JournalSettings(), settings)
    sources = {name: FilesSource(**source) for name, source in spec["watches"].items()}
    checkpoint = _killer(spec)
    listeners = {
        name: FilesListener(name=name, source=source, settings=settings, ledger=ledger, checkpoint=checkpoint)
        for name, source in sources.items()
    }
    archiver = FileArchiver(
        sources=sources,
        settings=settings,
        ledger=ledger,
        finished=FinishedEvents(redis, consumer=f"process-{os.getpid()}", claim_idle_seconds=0.5),
        returns=FileReturns(redis, journal=JournalSettings(), history=HistorySettings()),
        turn=lambda right: Lease(redis, right, ttl_seconds=1),
        rescan=lambda name: listeners[name].rescan(),
        checkpoint=checkpoint,
    )

    async def report() -> None:
        while True:
            statuses = {name: dict(listener.status()) for name, listener in listeners.items()}
            statuses["archive"] = dict(archiver.status())
            await redis.set(f"test:status:{os.getpid()}", json.dumps(statuses))
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        for listener in listeners.values():
            tasks.create_task(listener.run())
        tasks.create_task(archiver.run())
        if spec.get("report", True):
            tasks.create_task(report())


if __name__ == "__main__":
    configure_logging(LogSettings(level="info"))
    given = json.loads(sys.argv[1])
    if given.get("user") is not None:
        become(given["user"])
    asyncio.run(main(given))
