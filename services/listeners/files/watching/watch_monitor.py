"""The watch monitor: checks that the watched folder is the same one and that its watcher reports changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from services.listeners.files.folder import OWN, Folder
from services.listeners.files.watch_threads import WatchThreads
from services.listeners.files.watching.mounts import mount_of
from services.listeners.files.watching.root import Cookie, Root, look_at_root
from services.listeners.files.watching.tree import directories_below
from services.listeners.files.watching.watcher import Watcher

log = structlog.get_logger()

_ANSWER_SECONDS: Final = 5.0
"""Time limit for the watcher to report the cookie, and for the check of the folder."""
_GAP_SECONDS: Final = 3.0
"""A check that is this late shows that the process was stopped: the system's queue may have overflowed."""
_FIRST_REARM_SECONDS: Final = 0.05
_LONGEST_REARM_SECONDS: Final = 5.0
_TRY_LIMIT_AGAIN_SECONDS: Final = 60.0
_CODES: Final = {"root": "watch-gone", "writing": "watch-not-writable"}


@dataclass(kw_only=True, eq=False)
class WatchMonitor:
    """Keeps a watcher on the folder and decides how often full scans are needed.

    ``heard`` gets changed paths below the watch; ``rescan`` is called whenever a change may have been missed. `armed`
    is set once a watcher is active, or it is known that none can be.
    """

    folder: Folder
    threads: WatchThreads
    heard: Callable[[Sequence[bytes]], None]
    rescan: Callable[[], None]
    watcher: Callable[..., Watcher] = Watcher

    def __post_init__(self) -> None:
        self._watcher: Watcher | None = None
        self._listed = False
        self._wake = asyncio.Event()
        self._rearm_at: float | None = 0.0
        self._rearm_pause = _FIRST_REARM_SECONDS
        self._cookie: Cookie | None = None
        self._asked_at = 0.0
        self._missed = 0
        self._blind_before: frozenset[int] = frozenset()
        self._blind_tried: float | None = None
        self._problems: dict[str, str] = {}
        self._remote = self._bound = False
        self.armed = asyncio.Event()
        self.identity: str | None = None

    @property
    def by(self) -> str:
        """How arrivals are found: ``watcher``, ``polling``, or both."""
        if not self._watches:
            return "polling"
        return "watcher and polling" if self._polls else "watcher"

    @property
    def remote(self) -> bool:
        """Whether the folder is on a file system of another machine, as far as that is known."""
        return self._remote

    def problems(self) -> dict[str, str]:
        """What is wrong with the watch now, by the code of the reason."""
        found: dict[str, str] = {}
        for kind, sentence in self._problems.items():
            code = _CODES.get(kind, "watch-not-heard")
            found[code] = f"{found[code]}; {sentence}" if code in found else sentence
        return found

    def scan_interval(self) -> float:
        """Seconds between full scans: fewer where the watcher is not reliable."""
        return self.folder.settings.poll_seconds if self._polls else self.folder.rescan_seconds

    def directory_appeared(self) -> None:
        """Record a new directory: a watcher that has a list of directories needs a new list."""
        if self._listed:
            self._want_rearm()

    def scanned(self, directories: Mapping[int, bytes]) -> None:
        """Compare the directories that a full scan found with those that the system watches."""
        watched = self._watcher.watched() if self._watcher is not None else None
        blind = frozenset(directories) - watched if watched is not None else frozenset[int]()
        lasting, self._blind_before = blind & self._blind_before, blind
        if not lasting:
            self._condition("blind", None)
            if blind:
                self.rescan()  # new directories, which the system may be about to watch
            else:
                self._blind_tried = None
            return
        now = time.monotonic()
        if self._blind_tried is None or now - self._blind_tried > _TRY_LIMIT_AGAIN_SECONDS:
            self._blind_tried = now
            self._want_rearm()  # directories that could not be watched before may be watchable now
            return
        example = os.fsdecode(directories[next(iter(lasting))])
        self._condition(
            "blind",
            f"the system does not watch {len(lasting)} of {len(directories)} directories, such as {example!r}: files "
            "there are found by scans only; raise fs.inotify.max_user_watches, or exclude what need not be watched",
        )

    async def run(self) -> None:
        """Check every `root_check_seconds` until cancelled."""
        pause = self.folder.settings.root_check_seconds
        checked = time.monotonic()
        while True:
            now = time.monotonic()
            if now - checked > pause + _GAP_SECONDS:
                log.info(
                    "the process was stopped for a while: scanning",
                    watch=self.folder.name,
                    seconds=round(now - checked, 1),
                )
                self.rescan()
            checked = now
            await self._check_root()
            if self._rearm_at is not None and time.monotonic() >= self._rearm_at and self.identity is not None:
                await self._arm()
            await self._ask()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_next(pause)):
                    await self._wake.wait()

    def close(self) -> None:
        """Stop the watcher."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None

    @property
    def _watches(self) -> bool:
        polling = self.folder.source.polling
        return polling == "never" or (polling == "auto" and not self._remote)

    @property
    def _polls(self) -> bool:
        if not self._watches:
            return True
        untrusted = "deaf" in self._problems or "blind" in self._problems or "watcher" in self._problems
        return untrusted or (self._bound and self.folder.source.polling == "auto")

    def _seconds_to_next(self, pause: float) -> float:
        if self._rearm_at is None or self.identity is None:
            return pause
        return min(pause, max(0.0, self._rearm_at - time.monotonic()))

    async def _check_root(self) -> None:
        """Look whether the watched folder is still the same directory; another one is watched and scanned anew.

        A folder on a network may not respond: the look has a time limit.
        """
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                root = await self.threads.check(look_at_root, self.folder)
        except TimeoutError:
            root = Root(problem=f"the watched folder {self.folder.path} does not answer")
        if root.identity != self.identity:
            if root.identity is not None:
                if self.identity is not None:
                    log.info("the watched folder is another directory now", watch=self.folder.name)
                self._rearm_at = 0.0
            self.identity = root.identity
            self.rescan()
        self._condition("root", root.problem)
        if root.identity is None:
            self.close()
            self.armed.set()  # no watcher can be set up; scans report the problem
            self._rearm_at = 0.0

    async def _arm(self) -> None:
        """Set up a new watcher, and have everything scanned, because changes in between were not noticed.

        Without a watcher, scans find the files, and it is tried again later.
        """
        self.close()
        mount = await self.threads.check(mount_of, self.folder.root)
        self._remote, self._bound = (mount.remote, mount.bound) if mount else (False, False)
        self._rearm_at = None
        self._cookie, self._missed = None, 0
        if self._watches:
            loop = asyncio.get_running_loop()
            watcher: Watcher = self.watcher(
                step_ms=self.folder.settings.step_ms,
                heard=lambda paths: self._from_thread(loop, watcher, paths),
                failed=lambda reason: self._failed_in_thread(loop, watcher, reason),
            )
            directories, recursive = await self.threads.check(directories_below, self.folder)
            self._listed = self.folder.source.recursive and not recursive
            try:
                await self.threads.check(lambda: watcher.arm(directories, recursive=recursive))
            except Exception as error:  # noqa: BLE001 - the library raises what it likes; scans do its work meanwhile
                self._condition("watcher", f"the system's watcher cannot be set up: {error}")
                self._rearm_at = time.monotonic() + _LONGEST_REARM_SECONDS
            else:
                self._watcher = watcher
                self._condition("watcher", None)
                self._asked_at = 0.0
        self.armed.set()
        self.rescan()

    def _from_thread(self, loop: asyncio.AbstractEventLoop, watcher: Watcher, paths: Sequence[str]) -> None:
        """Pass changes on from the watcher's thread to the event loop, with paths relative to the folder."""
        root = self.folder.root + b"/"
        encoded = [os.fsencode(path) for path in paths]
        below = [path[len(root) :] for path in encoded if path.startswith(root)]
        if loop.is_closed():
            return
        if below:
            loop.call_soon_threadsafe(self._take, watcher, below)
        if self.folder.root in encoded:
            loop.call_soon_threadsafe(self._wake.set)  # the folder itself changed: check at once

    def _take(self, watcher: Watcher, paths: Sequence[bytes]) -> None:
        """Pass changes on, and note that the watcher works if its cookie is among them."""
        if watcher is not self._watcher and self._watcher is not None:
            return  # a watcher that was replaced; a scan followed
        self._rearm_pause = _FIRST_REARM_SECONDS
        if self._cookie is not None and self._cookie.name in paths:
            self._cookie.asked_at, self._missed = None, 0
            self._condition("deaf", None)
        others = [path for path in paths if not path.startswith(OWN)]
        if others:
            self.heard(others)

    def _failed_in_thread(self, loop: asyncio.AbstractEventLoop, watcher: Watcher, reason: str) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._failed, watcher, reason)

    def _failed(self, watcher: Watcher, reason: str) -> None:
        if watcher is not self._watcher:
            return
        log.info("the system's watcher failed: building another", watch=self.folder.name, reason=reason[:500])
        self.rescan()
        self._want_rearm()

    def _want_rearm(self) -> None:
        if self._rearm_at is None:
            self._rearm_at = time.monotonic() + self._rearm_pause
        self._rearm_pause = min(self._rearm_pause * 2, _LONGEST_REARM_SECONDS)
        self._wake.set()

    async def _ask(self) -> None:
        """Create the cookie when it is due, and replace the watcher when it did not report the last one.

        Where there is no watcher, the cookie still shows whether files can be taken out of the folder.
        """
        now = time.monotonic()
        cookie = self._cookie
        if self._watcher is None:
            if self.identity is None or not self.folder.moves_files or not self._is_due(now):
                return
        elif cookie is not None and cookie.asked_at is not None:
            if now - cookie.asked_at < _ANSWER_SECONDS:
                return
            self._missed += 1
            cookie.asked_at = None
            self.rescan()
            if self._missed == 1:
                log.info("the watcher did not report a cookie: building another", watch=self.folder.name)
                missed = self._missed
                await self._arm()
                self._missed = missed
            else:
                self._condition(
                    "deaf",
                    f"the system announces nothing of what happens in {self.folder.path}: files are found by scans "
                    "only; set `polling: always` if that is to be expected there",
                )
        elif not self._is_due(now):
            return
        self._asked_at = now
        self._cookie = self._cookie or Cookie(self.folder)
        self._cookie.asked_at = now if self._watcher is not None else None
        problem = await self.threads.check(self._cookie.drop)
        if problem is not None:
            self._cookie.asked_at = None  # in a read-only folder no cookie can be created
        unwritable = f"nothing can be written in the watched folder {self.folder.path}: {problem}"
        self._condition("writing", unwritable if problem is not None and self.folder.moves_files else None)

    def _is_due(self, now: float) -> bool:
        return not self._asked_at or now - self._asked_at >= self.folder.settings.cookie_seconds

    def _condition(self, kind: str, sentence: str | None) -> None:
        """Note a problem of one kind, or with None its end; log only changes."""
        before = self._problems.get(kind)
        if sentence is None:
            if self._problems.pop(kind, None) is not None:
                log.info("the watch is healthy again", watch=self.folder.name, was=before)
            return
        self._problems[kind] = sentence
        if before is None:
            log.warning("the watch is degraded", watch=self.folder.name, reason=sentence)
