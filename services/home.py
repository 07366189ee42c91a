"""The home of an installation: who runs there, where its servers are, and the lock that keeps it to one."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from events.errors import ConfigError
from events.redact import without_credentials


def ui_url(prefect_api_url: str) -> str:
    """Where a person looks: ``PREFECT_UI_URL`` if set (the API may be internal), else beside the API."""
    url = os.environ.get("PREFECT_UI_URL", "").rstrip("/") or prefect_api_url.rstrip("/").removesuffix("/api")
    return without_credentials(url)


@dataclass(frozen=True, slots=True)
class Running:
    """What ``sluice up`` writes down about itself, for the commands that talk to it."""

    pid: int
    redis_url: str
    prefect_api_url: str
    api_url: str

    @property
    def prefect_ui_url(self) -> str:
        """Where a person looks."""
        return ui_url(self.prefect_api_url)


class Home:
    """The directory ``.sluice/`` (``SLUICE_HOME``)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record = path / "running.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home for this process; raises `ConfigError` naming the pid of the process that has it.

        The kernel drops the lock with the process, however it ends.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("a+")
        except OSError as error:
            msg = (
                f"the home {self.path} cannot be used ({error.strerror}): set --home (SLUICE_HOME) to a folder of yours"
            )
            raise ConfigError(msg) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                pid = lock.read().strip() or "unknown"
                msg = f"Sluice is already running on {self.path} with pid {pid}: stop it first, or use another --home"
                raise ConfigError(msg) from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                yield
            finally:
                self._record.unlink(missing_ok=True)
                lock.truncate(0)

    def write_running(self, running: Running) -> None:
        """Publish where the servers are; replaces atomically."""
        draft = self._record.with_suffix(".new")
        draft.write_text(json.dumps(asdict(running)), encoding="utf-8")
        draft.chmod(0o600)
        draft.replace(self._record)

    def running(self) -> Running | None:
        """Where the servers of the ``sluice up`` on this home are; None when none runs (a dead one's note is void)."""
        try:
            running = Running(**json.loads(self._record.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        try:
            os.kill(running.pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass  # it lives, under another user
        return running
