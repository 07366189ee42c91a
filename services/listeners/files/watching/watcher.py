"""The watcher: reads the system's notifications, which say where to look. They may be late, incomplete or absent."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from watchfiles._rust_notify import RustNotify

Heard = Callable[[Sequence[str]], None]
"""Called with absolute paths at which something happened."""

_GROUP_MS: Final = 50
"""How long continuing changes are collected before they are passed on."""
_ARMING: Final = threading.Lock()


class Watcher:
    """Reports changes below a directory from the return of `arm` until `stop`.

    ``heard`` and ``failed`` are called in the watcher's thread; ``failed`` is the last call.
    """

    def __init__(self, *, step_ms: int, heard: Heard, failed: Callable[[str], None]) -> None:
        self._step_ms = step_ms
        self._heard = heard
        self._failed = failed
        self._stop = threading.Event()
        self._notify: RustNotify | None = None
        self._descriptor: int | None = None

    def arm(self, directories: Sequence[str], *, recursive: bool) -> None:
        """Begin to watch; takes as long as walking the tree. Raises `OSError`."""
        with _ARMING:  # so that the new descriptor is this watcher's
            before = _inotify_descriptors()
            # Without the last flag, one unreadable directory anywhere would end the watch of all of them. `watched`
            # and the cookie show which directories are not watched.
            self._notify = RustNotify(list(directories), False, False, 0, recursive, True)
            new = _inotify_descriptors() - before
        self._descriptor = new.pop() if len(new) == 1 else None
        threading.Thread(target=self._listen, args=(self._notify,), name="sluice-watcher", daemon=True).start()

    def watched(self) -> set[int] | None:
        """Return the inodes of the directories that the system watches; None where it does not list them."""
        if self._descriptor is None:
            return None
        try:
            text = Path(f"/proc/self/fdinfo/{self._descriptor}").read_text(encoding="ascii")
        except OSError:
            return None
        lines = (line.split() for line in text.splitlines() if line.startswith("inotify "))
        return {int(word[4:], 16) for words in lines for word in words if word.startswith("ino:")}

    def stop(self) -> None:
        """Stop watching; returns at once."""
        self._stop.set()

    def _listen(self, notify: RustNotify) -> None:
        """Pass on changes until the watcher is stopped. Runs in a thread of its own."""
        try:
            while True:
                # No time-out: changes can be lost when one ends a call.
                changes = notify.watch(_GROUP_MS, self._step_ms, 0, self._stop)
                if isinstance(changes, str):
                    break
                self._heard([path for _, path in changes])
        except Exception as error:  # noqa: BLE001 - whatever it is, it never clears: the owner builds a new one
            if not self._stop.is_set():
                self._failed(str(error))
        finally:
            self._descriptor = None
            notify.close()


def _inotify_descriptors() -> set[int]:
    """Return the descriptors of this process that are inotify instances."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return set()
    found = set()
    for name in names:
        try:
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:inotify":
                found.add(int(name))
        except OSError:
            continue
    return found
