"""The archiver: archives a file when its event is finished."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from config.settings import FileSettings, ListenerSettings
from config.sources import FilesSource
from events.errors import Backpressure, TransientError
from services.common.backoff import Backoff, heed_cancellation
from services.common.reasons import RETRYING, told
from services.listeners.files.archiving.folder_archiver import FolderArchiver
from services.listeners.files.folder import Folder
from services.store.events.finished_events import FinishedEvent, FinishedEvents
from services.store.files.ledger import Ledger
from services.store.files.returns import FileReturns
from services.store.lease import Lease

log = structlog.get_logger()

_READ: Final = 500
_BLOCK_SECONDS: Final = 1.0


class FileArchiver:
    """Moves files to their ``done`` or ``failed`` folders, or deletes or keeps them; several instances may run at once.

    It moves them back, too, for replays of their events.

    Reads finished events from the stream, writes them to the ledger for every instance that can reach the folder, and
    archives the files of its own watches. ``rescan`` is called with a watch in which a file was replaced before its
    run.
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, FilesSource],
        settings: FileSettings,
        ledger: Ledger,
        finished: FinishedEvents,
        returns: FileReturns,
        turn: Callable[[str], Lease],
        rescan: Callable[[str], None] = lambda _: None,
        backoff: ListenerSettings | None = None,
    ) -> None:
        self._ledger = ledger
        self._finished = finished
        backoff = backoff or ListenerSettings()
        self._reading = Backoff.of("read how events ended", backoff)
        self._folder_archivers = {
            name: FolderArchiver(
                folder=Folder.of(name, source, settings),
                ledger=ledger,
                returns=returns,
                turn=turn(f"files-archive:{name}"),
                rescan=lambda name=name: rescan(name),  # type: ignore[misc]
                backoff=Backoff.of(f"archive files of {name}", backoff),
            )
            for name, source in sources.items()
        }

    async def run(self) -> None:
        """Archive files until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(), name="read how events ended")
            for name, folder_archiver in self._folder_archivers.items():
                tasks.create_task(folder_archiver.run(), name=f"archive files of {name}")

    def status(self) -> Mapping[str, Any]:
        """Degraded with the reason while files cannot be archived."""
        troubles = [f"{name}: {each.trouble}" for name, each in self._folder_archivers.items() if each.trouble]
        return {"ready": True, **told({"not-archived": "; ".join(troubles), RETRYING: self._reading.trouble})}

    async def _read(self) -> None:
        """Read how events ended, also those that another archiver took and did not acknowledge."""
        claim_at = 0.0
        while True:
            heed_cancellation()
            try:
                if time.monotonic() >= claim_at:
                    claim_at = time.monotonic() + self._finished.claim_idle_seconds
                    await self._note(await self._finished.claim(count=_READ))
                await self._note(await self._finished.read(count=_READ, block_seconds=_BLOCK_SECONDS))
                self._reading.worked()
            except (TransientError, Backpressure) as error:
                await self._reading.after(error)

    async def _note(self, endings: list[FinishedEvent]) -> None:
        if not endings:
            return
        concerned = await self._ledger.finish((ending.identity, ending.raw) for ending in endings)
        await self._finished.acknowledge(endings)
        for name in concerned & self._folder_archivers.keys():
            self._folder_archivers[name].wake.set()
