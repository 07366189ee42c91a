"""Builds the parts that watch folders: a listener for each, the archiver, and the canary, which has a folder too."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from functools import partial

from config.canary import canary_watch
from config.settings import Settings
from config.sources import FilesSource
from services.listeners.canary import Canary
from services.listeners.files.archiving.archiver import FileArchiver
from services.listeners.files.listener import FilesListener
from services.store.connection import AsyncRedis
from services.store.events.finished_events import FinishedEvents
from services.store.events.history import History
from services.store.files.ledger import Ledger
from services.store.files.returns import FileReturns
from services.store.lease import Lease

FilePart = FilesListener | FileArchiver | Canary


def file_parts(
    project: Mapping[str, FilesSource],
    *,
    settings: Settings,
    redis: AsyncRedis,
    history: History,
    returns: FileReturns,
    instance: str,
) -> dict[str, FilePart]:
    """Return the parts by name; none if nothing is watched. ``project`` are the watches of the project file."""
    canary = settings.canary_in_force
    own = canary_watch(settings.home) if canary else {}
    for source in own.values():
        with contextlib.suppress(OSError):  # then the watch says that it is not there
            source.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    sources = {**project, **own}
    if not sources:
        return {}
    ledger = Ledger(redis, settings.journal, settings.files)
    home, backoff = settings.home, settings.listeners
    listener = partial(FilesListener, settings=settings.files, ledger=ledger, backoff=backoff, home=home)
    listeners = {name: listener(name=name, source=source) for name, source in sources.items()}
    archiver = FileArchiver(
        sources=sources,
        settings=settings.files,
        ledger=ledger,
        finished=FinishedEvents(redis, consumer=f"files-{socket.gethostname()}-{os.getpid()}"),
        returns=returns,
        turn=lambda right: Lease(redis, right, ttl_seconds=10),
        rescan=lambda name: listeners[name].rescan(),
        backoff=backoff,
    )
    parts: dict[str, FilePart] = {f"files:{name}": listener for name, listener in listeners.items()}
    parts["archiver"] = archiver
    if canary is not None:
        parts["canary"] = Canary(
            settings=canary, redis=redis, home=home, ledger=ledger, history=history, instance=instance
        )
    return parts
