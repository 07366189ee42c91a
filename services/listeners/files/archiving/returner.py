"""Moves files of one watch back from their archive folders, for replays of their events."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import structlog

from services.listeners.files.archiving.putting_back import put_back
from services.listeners.files.arriving.describe import make_alias
from services.listeners.files.arriving.unready_files import shown
from services.listeners.files.folder import Folder
from services.listeners.files.watch_threads import WatchThreads
from services.store.events.archived_file import ArchivedFile
from services.store.files.ledger import Ledger
from services.store.files.ledger_rows import Settlement, State
from services.store.files.returns import FileReturns, Return, ReturnAnswer

log = structlog.get_logger()


@dataclass(kw_only=True, eq=False)
class FileReturner:
    """Works while its caller holds the watch's lease. Raises `TransientError` and `Backpressure`."""

    folder: Folder
    ledger: Ledger
    returns: FileReturns
    threads: WatchThreads

    async def wanted(self) -> list[Return]:
        """Return the requested files."""
        return await self.returns.wanted(self.folder.name)

    async def bring_back(self, wanted: list[Return]) -> None:
        """Move the files back, and answer the requests."""
        for asked in wanted:
            answer = await self._bring_back(asked)
            if answer.reason:
                log.warning("a file was not brought back", event_id=asked.event_id, reason=answer.reason)
            await self.returns.answer(self.folder.name, asked, answer)

    async def _bring_back(self, asked: Return) -> ReturnAnswer:
        """Move the file of an event back from its archive folder, and put the event in flight again.

        The row in the ledger comes first: otherwise the file would be announced as a new event as soon as it is back.
        If the file cannot be moved, the row is closed again.
        """
        watch, event_id = self.folder.name, asked.event_id
        if await self.returns.outdated(asked):
            return ReturnAnswer(ok=True)
        file = await self.returns.archived(watch, event_id)
        if file is None:
            return ReturnAnswer(ok=False, reason="nothing is known (any more) of where its file was archived")
        tally = "done" if file.fate in {"done", "deleted"} else "failed"
        state = await self.ledger.reinstate(watch, event_id, file.path, file.announced, tally)
        if not state:
            return await self._refused(asked, f"another file was announced as {shown(file.path)}")
        problem = await self.threads.read(partial(self._put_back, file), event_id)
        if problem is not None:
            await self.ledger.settle(watch, [Settlement(event_id, file.path, State.CLOSED, tally)])
            return await self._refused(asked, problem)
        await self.returns.reopen(watch, asked, file)
        if asked.again is not None and not await self.returns.judge_again(watch, event_id, asked.again):
            log.warning("the journal no longer holds the event", event_id=event_id)
        if state == 1:
            whose = f", for {asked.by}" if asked.by else ""
            came = (
                f"its file was brought back from {shown(file.place)}"
                if file.place != file.path
                else "its file counts as new"
            )
            await self.returns.note(watch, event_id, f"{came}, to be tried again{whose}")
            log.info("file brought back", watch=watch, event_id=event_id, file=shown(file.path), by=asked.by)
        return ReturnAnswer(ok=True)

    def _put_back(self, file: ArchivedFile, event_id: str) -> str | None:
        problem = put_back(self.folder, file, event_id)
        if problem is None:
            try:
                file.path.decode()
            except UnicodeDecodeError:
                make_alias(self.folder, file.path)
        return problem

    async def _refused(self, asked: Return, reason: str) -> ReturnAnswer:
        await self.returns.note(self.folder.name, asked.event_id, f"not tried again: {reason}")
        return ReturnAnswer(ok=False, reason=reason)
