"""A listener and an archiver as a process of their own: ``python -m tests.integration.files.process SPEC``.

SPEC is JSON: ``redis`` (URL), ``watches`` (name to source), ``settings`` and, to die by SIGKILL, ``kill_at`` (a step
of `tests.support.file_steps`) with ``after`` (how often it is passed before); the process becomes the ``user``, if one
is given. Its statuses are kept at ``test:status:PID``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
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
from tests.support.file_steps import interfere


def _die_at(step: str, *, after: int) -> None:
    passed = itertools.count()
    interfere(step, lambda: os.kill(os.getpid(), signal.SIGKILL) if next(passed) == after else None)


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
    if spec.get("kill_at"):
        _die_at(spec["kill_at"], after=spec.get("after", 0))
    listeners = {
        name: FilesListener(name=name, source=source, settings=settings, ledger=ledger)
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
