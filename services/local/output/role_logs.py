"""The logs of the roles that `sluice up` runs: each line goes to its role's file, and to this process's output.

A role writes JSON into a pipe. Output that is not JSON, such as of a C library that aborts, becomes a line of JSON
here. So the last output of a process is not lost, and only one process closes and renames the files.
"""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import selectors
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final, Self, TextIO, cast

from typing_extensions import override

from config.logs import as_line, for_terminal, is_line
from config.settings import LogSettings

SUPERVISOR: Final = "supervisor"
"""The file of the supervisor's own lines."""

OTHERS: Final = ("prefect.log", "valkey.log", "deploy.log")
"""Files that the servers, and `sluice deploy`, append to themselves."""

_LONGEST: Final = 256 * 1024
"""Longer lines are split."""
_PIPE_BYTES: Final = 1 << 20
"""Number of bytes that a role can write without blocking while this process is stopped (Ctrl-Z)."""
_OTHERS_SECONDS: Final = 60.0
_LAST_SECONDS: Final = 1.0


class RoleLogs:
    """Writes in a thread of its own, so that roles wait for the disk at most.

    Between `hold` and `show`, lines below a warning go only to the files.
    """

    def __init__(self, folder: Path, settings: LogSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._to_terminal = for_terminal(settings)
        self._pipes: dict[str, int] = {}
        self._files: dict[str, _RoleLog] = {}
        self._rests: dict[str, bytes] = {}
        self._selector = selectors.DefaultSelector()
        self._held: list[str] | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)

    def start(self) -> Self:
        """Begin to write; the calling process must not fork a template after that."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def pipe(self, role: str) -> Path | None:
        """Return the file that the role writes to: the path of a pipe's end; None if the system has no such path."""
        with self._lock:
            if role not in self._pipes:
                reading, self._pipes[role] = os.pipe()  # kept open here, or the pipe would end with the role
                with suppress(AttributeError, OSError):  # more than the system allows, or not on Linux
                    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
                self._selector.register(reading, selectors.EVENT_READ, role)
            shown = f"/proc/{os.getpid()}/fd" if sys.platform == "linux" else "/dev/fd"
            path = Path(shown, str(self._pipes[role]))
            return path if os.access(path, os.W_OK) else None

    def stream(self) -> TextIO:
        """Return the stream for the supervisor's own lines."""
        return cast("TextIO", _Stream(lambda text: self._take(SUPERVISOR, text.encode())))

    def hold(self) -> None:
        """Keep the roles' lines back, which would come between the supervisor's messages about the start."""
        self._held = []

    def show(self) -> None:
        """Write the lines that were kept back, and all further ones."""
        with self._lock:
            held, self._held = self._held, None
            self._write(held or [])

    def close(self) -> None:
        """Write the rest of the pipes, and stop."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._thread.join(_LAST_SECONDS)
        with self._lock:
            for key in list(self._selector.get_map().values()):
                os.close(self._selector.unregister(key.fd).fd)
            self._selector.close()
            for writing in self._pipes.values():
                os.close(writing)
        for role in list(self._rests):
            self._take(role, b"\n")  # ends an unfinished line
        self.show()
        for file in self._files.values():
            file.close()

    def _run(self) -> None:
        """Read the output of the roles until stopped, and what is left then. Runs in a thread."""
        others_at = 0.0
        while True:
            last = self._stopped.is_set()
            if time.monotonic() > others_at:
                self._keep_others_short()
                others_at = time.monotonic() + _OTHERS_SECONDS
            found = self._selector.select(0 if last else 0.2)
            for key, _ in found:
                with suppress(OSError):
                    self._take(key.data, os.read(key.fd, 1 << 16))
            if last and not found:
                return

    def _take(self, role: str, chunk: bytes) -> None:
        """Divide a role's output into lines: each goes to its log file, and those of importance to the terminal."""
        with self._lock:
            *lines, rest = (self._rests.pop(role, b"") + chunk).split(b"\n")
            if len(rest) > _LONGEST:
                lines, rest = [*lines, rest], b""
            self._rests[role] = rest
            shown = [self._line(role, line) for line in lines if line.strip()]
            if role not in self._files:
                self._files[role] = _RoleLog(self._folder / f"{role}.log", self._settings)
            for line in shown:
                self._files[role].add(line)
            if self._held is not None:
                self._held += [line for line in shown if not _matters(line)]
                shown = [line for line in shown if _matters(line)]
            self._write(shown)

    def _write(self, lines: list[str]) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write("".join(self._to_terminal(line) + "\n" for line in lines))
            sys.stderr.flush()

    @staticmethod
    def _line(role: str, raw: bytes) -> str:
        line = raw.decode(errors="backslashreplace")
        return line if is_line(line) else as_line("output", level="info", event=line, role=role)

    def _keep_others_short(self) -> None:
        """Copy and empty files that have grown too long: their writers append, and continue to."""
        for path in (self._folder / name for name in OTHERS):
            with suppress(OSError):
                if path.stat().st_size > self._settings.max_file_bytes:
                    _make_room(path, self._settings.old_files)
                    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
                    os.truncate(path, 0)


class _RoleLog(RotatingFileHandler):
    """A log file for which a full disk or a missing folder only loses lines."""

    def __init__(self, path: Path, settings: LogSettings) -> None:
        super().__init__(
            path, maxBytes=settings.max_file_bytes, backupCount=settings.old_files, encoding="utf-8", delay=True
        )

    def add(self, line: str) -> None:
        self.emit(logging.makeLogRecord({"msg": line}))

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: the same line goes to the terminal."""


class _Stream(io.TextIOBase):
    def __init__(self, take: Callable[[str], None]) -> None:
        super().__init__()
        self._take = take

    def write(self, text: str) -> int:
        self._take(text)
        return len(text)


def _matters(line: str) -> bool:
    return json.loads(line).get("level") not in {"debug", "info"}


def _make_room(path: Path, most: int) -> None:
    for number in range(most - 1, 0, -1):
        with suppress(FileNotFoundError):
            path.with_name(f"{path.name}.{number}").replace(path.with_name(f"{path.name}.{number + 1}"))
