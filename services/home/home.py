"""The home of an installation: private to its user; credentials, the running installation, and the lock on it."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from events.errors import ConfigError
from events.redact import without_credentials
from services.home.tickets import Tickets

PRIVATE_UMASK: Final = 0o077
LOGIN_PATH: Final = "/sluice/login"
_PRIVATE_FOLDER: Final = 0o700
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def ui_url(prefect_api_url: str) -> str:
    """Return the URL of Prefect's UI: ``PREFECT_UI_URL`` if set (the API may be internal), else beside the API."""
    url = os.environ.get("PREFECT_UI_URL", "").rstrip("/") or prefect_api_url.rstrip("/").removesuffix("/api")
    return without_credentials(url)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The passwords that an installation makes for itself, once."""

    prefect_auth_string: str = field(repr=False)
    """In Prefect's form: ``user:password``."""
    redis_password: str = field(repr=False)
    api_token: str = field(repr=False)

    @classmethod
    def new(cls) -> Credentials:
        """Create new ones, of 256 bits each."""
        return cls(
            prefect_auth_string=f"sluice:{secrets.token_urlsafe(32)}",
            redis_password=secrets.token_urlsafe(32),
            api_token=secrets.token_urlsafe(32),
        )


@dataclass(frozen=True, slots=True)
class RunningInstallation:
    """What ``sluice up`` records about itself for other commands."""

    pid: int
    redis_url: str = field(repr=False)
    """With its password."""
    prefect_api_url: str
    api_url: str
    prefect_auth_string: str | None = field(default=None, repr=False)
    api_token: str | None = field(default=None, repr=False)
    ui_login: bool = False
    """Whether the Prefect server is ours and requires a password, so that a ticket logs in to its UI."""
    own_redis: bool = False
    own_prefect: bool = False
    """Whether ``sluice up`` has started the server itself, on this home."""

    @property
    def prefect_ui_url(self) -> str:
        """URL of Prefect's UI."""
        return ui_url(self.prefect_api_url)


class Home:
    """The directory ``.sluice/`` (``SLUICE_HOME``)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record = path / "running.json"
        self._credentials = path / "credentials.json"
        self.tickets = path / "tickets"
        """Tickets that log a browser in to the UI."""

    def make_private(self) -> str | None:
        """Create the home if it is missing, and make it private; return what was changed, if anything.

        If others could enter the home, the rights of everything in it are corrected. Raises `ConfigError` if that is
        not possible.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_FOLDER)
            found = self.path.stat()
            if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == _PRIVATE_FOLDER:
                return None
            self.path.chmod(_PRIVATE_FOLDER)
        except OSError as error:
            raise ConfigError(self._no_use(error.strerror or str(error))) from error
        if found.st_uid != os.geteuid() and os.geteuid() != 0:
            raise ConfigError(self._no_use(f"it belongs to the user {_user(found.st_uid)}"))
        if found.st_mode & _OTHERS and _close(self.path):
            return f"{self.path} was open to other users (mode {stat.S_IMODE(found.st_mode):03o}) and is closed now"
        return None

    def credentials(self) -> Credentials:
        """Return the passwords of this home, created on first use; concurrent callers get the same."""
        for _ in range(2):
            try:
                return Credentials(**json.loads(self._credentials.read_text(encoding="utf-8")))
            except FileNotFoundError:
                self.make_private()
                draft = self.path / f"credentials.{os.getpid()}.{secrets.token_hex(4)}"
                _write_private(draft, asdict(Credentials.new()))
                with suppress(FileExistsError):
                    os.link(draft, self._credentials)
                draft.unlink()
            except (ValueError, TypeError) as error:
                msg = f"{self._credentials} cannot be read ({error}): delete it, and the next start makes new passwords"
                raise ConfigError(msg) from error
            except OSError as error:
                raise ConfigError(self._no_use(error.strerror or str(error))) from error
        raise ConfigError(self._no_use(f"{self._credentials.name} vanishes as soon as it is written"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home for this process; raises `ConfigError` naming the pid of the process that has it.

        The kernel drops the lock with the process, however it ends.
        """
        self.make_private()
        try:
            lock = os.fdopen(os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a+")
        except OSError as error:
            raise ConfigError(self._no_use(error.strerror or str(error))) from error
        with lock:
            os.fchmod(lock.fileno(), 0o600)
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

    def write_running(self, running: RunningInstallation) -> None:
        """Record where the servers are; replaces the file atomically."""
        draft = self._record.with_suffix(".new")
        draft.unlink(missing_ok=True)
        _write_private(draft, asdict(running))
        draft.replace(self._record)

    def running(self) -> RunningInstallation | None:
        """Return the running installation on this home; None if none runs, even if a dead one's record exists.

        Raises `ConfigError` for a home of another user.
        """
        try:
            running = RunningInstallation(**json.loads(self._record.read_text(encoding="utf-8")))
        except PermissionError as error:
            raise ConfigError(self._not_yours()) from error
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            return None
        try:
            os.kill(running.pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass  # the process lives, under another user
        return running

    def ui_link(self, running: RunningInstallation) -> str:
        """Return a link to Prefect's UI that logs the browser in, once and within an hour."""
        if not running.ui_login:
            return running.prefect_ui_url
        return f"{running.prefect_ui_url}{LOGIN_PATH}#{Tickets(self.tickets).issue()}"

    def refuse_others(self) -> None:
        """Raise `ConfigError` for anybody but the owner of the home."""
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except PermissionError as error:
            raise ConfigError(self._not_yours()) from error
        if found.st_uid != os.geteuid():
            raise ConfigError(self._not_yours(_user(found.st_uid)))

    def _no_use(self, why: str) -> str:
        return f"the home {self.path} cannot be used ({why}): set --home (SLUICE_HOME) to a folder of yours"

    def _not_yours(self, owner: str = "another user") -> str:
        return (
            f"the home {self.path} belongs to {owner}, and only its owner may read how its servers are reached: "
            f"run the command as that user, or set SLUICE_HOME to a home of yours"
        )


def _close(folder: Path) -> bool:
    """Remove others' rights below ``folder``, without following symbolic links; true if all of it is private."""
    whole = True
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)  # noqa: PTH118 - many, and os.walk speaks text
            try:
                mode = os.lstat(path).st_mode
                if mode & _OTHERS and not stat.S_ISLNK(mode):
                    os.chmod(path, stat.S_IMODE(mode) & ~_OTHERS)  # noqa: PTH101 - likewise
            except FileNotFoundError:
                continue
            except PermissionError:
                whole = False
    return whole


def _write_private(path: Path, content: Any) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"with the id {uid}"
