"""A watched folder of a test, on the session's Valkey: what of the listener and the archiver its files go through."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config.settings import FileSettings, HistorySettings, JournalSettings
from config.sources import FilesSource
from events.event import Event, parse_event
from events.identity import identity_of
from events.untrusted_json import Limits
from services.common.backoff import Backoff
from services.common.file_version import Version
from services.listeners.files.archiving.folder_archiver import FolderArchiver
from services.listeners.files.arriving.arrivals import Arrivals
from services.listeners.files.arriving.unready_files import UnreadyFiles
from services.listeners.files.folder import Folder
from services.listeners.files.full_scan import FullScan
from services.listeners.files.names import Names
from services.listeners.files.scanning.examine import Examiner
from services.listeners.files.scanning.scan import Found
from services.listeners.files.watch_threads import WatchThreads
from services.store.connection import AsyncRedis
from services.store.events.journal import STREAM
from services.store.files.ledger import Ledger, source_of
from services.store.files.ledger_rows import Row
from services.store.files.returns import FileReturns
from services.store.lease import Lease
from tests.support.sources import running
from tests.support.waiting import eventually

AT_ONCE = FileSettings(stable_seconds=1e-9, rescan_seconds=0.05)
"""A file that nobody writes is complete."""


@dataclass(eq=False)
class Watched:
    """The watch ``inbox`` of the folder ``path``."""

    path: Path
    redis: AsyncRedis
    settings: FileSettings = AT_ONCE
    options: dict[str, Any] = field(default_factory=dict)
    rescans: int = 0

    def __post_init__(self) -> None:
        self.source = FilesSource(**{"path": self.path, "quiet_ms": 0, **self.options})
        self.folder = Folder.of("inbox", self.source, self.settings)
        self.names = Names(self.source)
        self.ledger = Ledger(self.redis, JournalSettings(), self.settings)
        self.threads = WatchThreads("inbox")
        self.returns = FileReturns(self.redis, journal=JournalSettings(), history=HistorySettings())

    def close(self) -> None:
        self.threads.close()

    def rescan(self) -> None:
        self.rescans += 1

    def arrivals(self, **more: Any) -> Arrivals:
        examiner = Examiner(self.folder, self.names.marker)
        parts = {"waiting": UnreadyFiles(limit=100), "threads": self.threads, "examiner": examiner, **more}
        return Arrivals(folder=self.folder, ledger=self.ledger, **parts)

    def full_scan(self, arrivals: Arrivals) -> FullScan:
        parts: dict[str, Any] = {"names": self.names, "ledger": self.ledger, "threads": self.threads}
        return FullScan(folder=self.folder, arrivals=arrivals, consider=arrivals.consider, **parts)

    def archiver(self, *, lease: str = "files-archive:inbox") -> FolderArchiver:
        return FolderArchiver(
            folder=self.folder,
            ledger=self.ledger,
            returns=self.returns,
            turn=Lease(self.redis, lease, ttl_seconds=10),
            rescan=self.rescan,
            backoff=Backoff("archive files of inbox", first_seconds=0.01, longest_seconds=0.1),
        )

    def put(self, name: str | bytes, content: str = "x") -> Found:
        path = os.path.join(os.fsencode(self.path), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        return self.found(name)

    def found(self, name: str | bytes) -> Found:
        path = os.fsencode(name)
        return Found(path, Version.of(os.stat(os.path.join(os.fsencode(self.path), path))))

    async def announced(self) -> list[Event]:
        """The events in the journal, the oldest first."""
        entries = await self.redis.xrange(STREAM)
        return [parse_event(fields[b"event"], limits=Limits(), from_outside=False) for _, fields in entries]

    async def row(self, name: str) -> Row:
        (row,) = await self.ledger.rows("inbox", [os.fsencode(name)])
        assert row is not None
        return row

    async def finish(self, event_id: str, *, ok: bool = True, matched: int = 1, **more: Any) -> None:
        """The event has ended, as the stream of finished events says it."""
        said = {"identity": identity_of(source_of("inbox"), event_id), "ok": ok, "matched": matched, **more}
        await self.ledger.finish([(said["identity"], json.dumps(said).encode())])

    async def archive(self) -> None:
        """Return once the archiver has seen to every event that has ended."""
        async with running(self.archiver()):
            await eventually(self._nothing_due, what="the archiver has seen to all files")

    async def _nothing_due(self) -> bool:
        return not (await self.ledger.numbers("inbox"))["due"]

    def tree(self) -> dict[str, str]:
        """All files, with what is in them."""
        return {str(one.relative_to(self.path)): one.read_text() for one in self.path.rglob("*") if one.is_file()}
