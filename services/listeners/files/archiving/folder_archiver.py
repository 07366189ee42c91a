"""Archives the files of one watch, one process at a time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import structlog

from events.errors import Backpressure, TransientError
from services.common.backoff import Backoff, heed_cancellation
from services.common.file_version import Version
from services.listeners.files.archiving.archive_expiry import ArchiveExpiry
from services.listeners.files.archiving.file_mover import Mover, MoveResult, PutAway
from services.listeners.files.archiving.returner import FileReturner
from services.listeners.files.archiving.sidecar import Finished, parsed, sidecar_text
from services.listeners.files.arriving.describe import drop_alias
from services.listeners.files.arriving.unready_files import shown
from services.listeners.files.folder import Folder
from services.listeners.files.names import Names
from services.listeners.files.watch_threads import WatchThreads
from services.store.events.archived_file import ArchivedFile
from services.store.files.ledger import Ledger
from services.store.files.ledger_rows import InFlight, Settlement, State
from services.store.files.returns import FileReturns
from services.store.lease import Lease

log = structlog.get_logger()

_IDLE_SECONDS: Final = 1.0
_BUSY_SECONDS: Final = 0.5
_ADOPTION_SECONDS: Final = 2.0

_REMEDIES: Final = {
    os.strerror(errno.EACCES): ": the user that runs Sluice needs to write to the folder (docs/watched-folders.md)",
    os.strerror(errno.EPERM): (
        ": a folder with the sticky bit (chmod -t takes it off) lets only a file's owner move it, and an immutable file"
        " nobody (docs/watched-folders.md)"
    ),
}
"""What to do, by what the system says."""


@dataclass(kw_only=True, eq=False)
class FolderArchiver:
    """Archives the files of one watch when `wake` is set, and at intervals; ``rescan`` is called for replaced files."""

    folder: Folder
    ledger: Ledger
    returns: FileReturns
    turn: Lease
    rescan: Callable[[], None]
    backoff: Backoff

    def __post_init__(self) -> None:
        self._mover = Mover(self.folder)
        self._marker = Names(self.folder.source).marker
        self._threads = WatchThreads(f"{self.folder.name}-archive")
        self._expiry = ArchiveExpiry(self.folder)
        self._returner = FileReturner(
            folder=self.folder, ledger=self.ledger, returns=self.returns, threads=self._threads
        )
        self._later: dict[str, float] = {}
        self._cursor = 0
        self._obstacle: str | None = None
        self.wake = asyncio.Event()

    @property
    def trouble(self) -> str | None:
        """Why files cannot be archived."""
        return self.backoff.trouble or self._obstacle

    async def run(self) -> None:
        """Archive files of finished events until cancelled; one process at a time does, by lease."""
        try:
            while True:
                heed_cancellation()
                try:
                    busy = await self._work()
                    self.backoff.worked()
                except (TransientError, Backpressure) as error:
                    await self.backoff.after(error)
                    continue
                if not busy:
                    await self._rest()
        finally:
            self._threads.close()
            with contextlib.suppress(TransientError, Backpressure, TimeoutError):  # the lease expires by itself
                async with asyncio.timeout(1):
                    await self.turn.release()

    async def _rest(self) -> None:
        self.wake.clear()
        pause = _IDLE_SECONDS
        if self._later:
            pause = min(pause, max(0.05, min(self._later.values()) - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self.wake.wait()

    async def _work(self) -> bool:
        """Archive some files; false if there is nothing more to do now."""
        watch = self.folder.name
        due, self._cursor = await self.ledger.due(watch, self.folder.settings.batch, self._cursor)
        now = time.monotonic()
        todo = [one for one in due if self._later.get(one.event_id, now) <= now]
        if not due and not self._cursor:
            self._hindered(None)
            self._later.clear()
        wanted = await self._returner.wanted()
        if (
            (todo or wanted or self._expiry.is_due)
            and (self.turn.certain or await self.turn.acquire())
            and await self.turn.renew()
        ):
            await self._returner.bring_back(wanted)
            if self._expiry.is_due:
                await self._threads.read(self._expiry.expire, time.time())
            settled = await self._threads.look(self._put_away, todo)
            if settled:
                files = [(one.event_id, one.archived) for one in settled if one.archived is not None]
                await self.returns.keep(watch, files)
                await self.ledger.settle(watch, settled)
            for one in settled:
                self._later.pop(one.event_id, None)
            return bool(settled or wanted) or self._cursor != 0
        return self._cursor != 0

    def _put_away(self, due: Sequence[InFlight]) -> list[Settlement]:
        """Archive the files of finished events as long as the lease is certain; return what their rows become."""
        settled = []
        for one in due:
            if not self.turn.certain:
                break  # this took so much time that another process may have the lease
            settlement = self._put_one_away(one)
            if settlement is not None:
                settled.append(settlement)
        return settled

    def _put_one_away(self, one: InFlight) -> Settlement | None:
        """Move or delete one file as its watch says; return what its row becomes, None if it is tried later.

        Only the version that was announced is moved. A later version stays, and runs.
        """
        finished = parsed(one.finished)
        if one.row is None or one.row.generation != one.generation:
            # The row belongs to a later version of the file, which must stay.
            return Settlement(one.event_id, one.path, State.CLOSED, _tally(finished))
        ok = bool(finished.get("ok"))
        if ok and not finished.get("matched") and not finished.get("same"):
            return Settlement(one.event_id, one.path, State.UNMATCHED, "unmatched")
        rule = self.folder.source.on_success if ok else self.folder.source.on_failure
        if rule == "keep":
            state = State.DONE if ok else State.FAILED
            return self._kept(one, ok=ok, state=state)
        if not ok and one.row.version != one.announced:
            # The file was touched meanwhile: the run may have ended for that reason, so the present version must run.
            self.rescan()
            return Settlement(one.event_id, one.path, State.CLOSED, "failed")
        version = Version.parse(one.row.version)
        if self._marker is not None and one.row.marker is not None:
            self._mover.drop_marker(self._marker.of(one.path), one.row.marker)
        if rule == "delete":
            done = self._mover.delete(one.path, version, one.event_id)
        else:
            into = self.folder.source.done if ok else self.folder.source.failed
            text = None
            if not ok:
                text = sidecar_text(self.folder, one.path, one.event_id, finished, at=datetime.now(UTC))
            done = self._mover.move(one.path, version, one.event_id, into.encode(), text)
        return self._concluded(one, done, ok=ok)

    def _kept(self, one: InFlight, *, ok: bool, state: State) -> Settlement:
        """Return what the row of a file becomes that stays where it is, as its watch says."""
        assert one.row is not None  # noqa: S101 - for the type checker
        if not ok and self._mover.is_other(one.path, Version.parse(one.announced)):
            self.rescan()
            state = State.CLOSED  # the run did not get the announced version: the present one is new
        archived = None if state is State.CLOSED else _archived(one, "kept", PutAway(MoveResult.MOVED))
        return Settlement(
            one.event_id, one.path, state, "done" if ok else "failed", remember_content=ok, archived=archived
        )

    def _concluded(self, one: InFlight, done: PutAway, *, ok: bool) -> Settlement | None:
        """Return what the row becomes after the file was moved, was gone or had changed; None if it is tried later."""
        tally = "done" if ok else "failed"
        file = shown(one.path)
        match done.fate:
            case MoveResult.MOVED:
                drop_alias(self.folder, one.path)
                target = shown(done.target) if done.target else None
                log.info("file archived", watch=self.folder.name, event_id=one.event_id, file=file, target=target)
                self._hindered(None)
                archived = _archived(one, "deleted" if done.target is None else "done" if ok else "failed", done)
                return Settlement(one.event_id, one.path, State.CLOSED, tally, remember_content=ok, archived=archived)
            case MoveResult.GONE:
                drop_alias(self.folder, one.path)
                log.info("file was gone before it could be archived", event_id=one.event_id, file=file)
                return Settlement(one.event_id, one.path, State.CLOSED, tally, remember_content=ok)
            case MoveResult.CHANGED if ok and one.event_id not in self._later:
                self._try_later(one, _ADOPTION_SECONDS)  # the file may only have been touched: the listener checks that
            case MoveResult.CHANGED:
                log.info("file was replaced: the new version stays", event_id=one.event_id, file=file)
                self.rescan()
                # After a failure, which may be for that reason, the present version must run.
                return Settlement(
                    one.event_id, one.path, State.DONE if ok else State.CLOSED, tally, remember_content=ok
                )
            case MoveResult.BUSY:
                self._try_later(one, _BUSY_SECONDS)
            case MoveResult.FULL | MoveResult.DENIED:
                self._hindered(f"{file} cannot be archived: {done.reason}{_REMEDIES.get(done.reason or '', '')}")
                self._try_later(one, self.folder.rescan_seconds)
        return None

    def _try_later(self, one: InFlight, seconds: float) -> None:
        self._later[one.event_id] = time.monotonic() + seconds

    def _hindered(self, reason: str | None) -> None:
        if reason is not None and self._obstacle is None:
            log.warning("files cannot be archived", watch=self.folder.name, reason=reason)
        if reason is None and self._obstacle is not None:
            log.info("files can be archived again", watch=self.folder.name)
        self._obstacle = reason


def _archived(one: InFlight, fate: Literal["done", "failed", "kept", "deleted"], done: PutAway) -> ArchivedFile | None:
    """Return the record by which a replay finds the file again."""
    finished = parsed(one.finished)
    if finished.get("same"):
        return None  # there is no event of it
    version = one.announced if done.version is None else str(done.version)
    return ArchivedFile(
        at=datetime.now(UTC),
        fate=fate,
        path=one.path,
        place=done.target or one.path,
        version=version,
        announced=one.announced,
        ended=dict(finished),
    )


def _tally(finished: Finished) -> str:
    if not finished.get("ok"):
        return "failed"
    return "done" if finished.get("matched") or finished.get("same") else "unmatched"
