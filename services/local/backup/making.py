"""`sluice backup`: a copy of what an installation keeps, while it runs.

Redis is copied first and Prefect's database after it. Prefect's copy then has effects that Redis' copy lacks: these are
decided or requested once more, under the same idempotency keys, and found. In the other order Redis would refer to runs
that Prefect does not have.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config.settings import Settings
from events.errors import ConfigError, TransientError
from services.home.access import Access
from services.local.environment.version import own_version
from services.store.connection import connect_sync
from services.store.state.snapshot import copy_to

FORMAT: Final = 1
"""Version of the folder's format; a program reads versions up to its own."""

MANIFEST: Final = "manifest.json"
REDIS: Final = "redis.rdb"
SQLITE: Final = "prefect.db"
POSTGRESQL: Final = "prefect.pgdump"
HOME: Final = "home"
CREDENTIALS: Final = "credentials.json"

DATABASE_VARIABLE: Final = "PREFECT_API_DATABASE_CONNECTION_URL"
_TLS: Final = "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_TLS_"
_PRIVATE: Final = 0o700


class CopiedFile(BaseModel):
    """A file of the backup."""

    model_config = ConfigDict(frozen=True)

    size: int
    sha256: str


class Manifest(BaseModel):
    """The content and origin of a backup; its file is written last."""

    model_config = ConfigDict(frozen=True)

    format: int
    sluice: str
    prefect: str
    created: datetime
    redis_copied: datetime
    """The moment to which the state in Redis belongs, at the latest."""
    prefect_copied: datetime | None
    """The moment to which Prefect's database belongs, at the earliest; None if it was not copied."""
    own_redis: bool
    """Whether `sluice up` ran this Redis."""
    redis_database: int = 0
    """The number of the database that is Sluice's."""
    files: dict[str, CopiedFile] = Field(default_factory=dict)
    """The files by their paths in the backup."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the manifest of the backup in ``folder``.

        Raises `ConfigError` if there is none that this version reads.
        """
        file = folder / MANIFEST
        try:
            told: Any = json.loads(file.read_text(encoding="utf-8"))
            found = told["format"]
            if isinstance(found, int) and found > FORMAT:
                raise ConfigError(
                    f"{folder} was written by a newer Sluice ({told.get('sluice')}, format {found}; this one, "
                    f"{own_version()}, reads up to {FORMAT}): restore it with that version"
                )
            return cls.model_validate(told)
        except FileNotFoundError:
            raise ConfigError(f"{folder} is no finished backup: it has no {MANIFEST}") from None
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise ConfigError(f"{file} is damaged ({type(error).__name__}): use another backup") from error

    def verify(self, folder: Path) -> None:
        """Raise `ConfigError` naming every file of the backup that is not as it was written."""
        wrong = []
        for name, kept in self.files.items():
            path = folder / name
            if not path.resolve().is_relative_to(folder.resolve()):
                wrong.append(f"{MANIFEST} names {name!r}, which is outside {folder}")
            elif not path.is_file():
                wrong.append(f"{path} is missing: use another backup")
            elif measured(path) != kept:
                wrong.append(f"{path} is not what was written (its size or its SHA-256 differs): use another backup")
        if wrong:
            raise ConfigError(*wrong)


def back_up(settings: Settings, access: Access, target: Path, *, say: Callable[[str], None]) -> Manifest:
    """Copy the installation into the new folder ``target``.

    The folder gets its name when it is complete. Raises `ConfigError` for a folder that is not empty, and
    `TransientError` if a server cannot be copied.
    """
    if access.redis_url is None:
        raise ConfigError(
            f"nothing runs on {settings.home}: start `sluice up`, or set SLUICE_REDIS_URL; of an installation that is "
            "stopped, the folder itself is the backup"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not empty: name an empty folder, or a new one")
    draft = target.with_name(f"{target.name}.part{os.getpid()}")
    try:
        draft.mkdir(mode=_PRIVATE, parents=True)
    except OSError as error:
        raise ConfigError(f"{draft} cannot be made: {error.strerror}") from error
    try:
        manifest = _copy(settings, access, draft, say=say)
        if target.exists():
            target.rmdir()
        draft.rename(target)
    except OSError as error:
        raise TransientError(f"the backup could not be written to {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def _copy(settings: Settings, access: Access, draft: Path, *, say: Callable[[str], None]) -> Manifest:
    """Copy Redis first, then Prefect's database and the home, into ``draft``; return its manifest.

    In this order no run is missing that Redis knows: what Prefect does after the copy of Redis is found as a repair
    finds it, by keys. The files are synchronized to disk, so that a finished backup survives a power cut.
    """
    running = access.running
    own_redis = running is not None and running.own_redis and access.redis_url == running.redis_url
    own_prefect = running is not None and running.own_prefect and access.prefect_api_url == running.prefect_api_url
    with connect_sync(str(access.redis_url), settings.redis) as client:
        copy_to(client, draft / REDIS)
        redis_database = int(client.get_connection_kwargs().get("db") or 0)
    redis_copied = datetime.now(UTC)
    prefect_copied: datetime | None = datetime.now(UTC)
    url = os.environ.get(DATABASE_VARIABLE, "")
    if own_prefect:
        copy_sqlite(settings.home / "prefect" / SQLITE, draft / SQLITE)
    elif url.startswith("postgresql"):
        dump_postgresql(url, draft / POSTGRESQL)
    elif url.startswith("sqlite"):
        copy_sqlite(Path(url.partition("///")[2]), draft / SQLITE)
    else:
        prefect_copied = None
        say(
            f"warning: the database of the Prefect server at {access.prefect_api_url} is not in the backup: set "
            f"{DATABASE_VARIABLE} as that server has it, or copy it yourself now, after Redis (docs/backup.md)"
        )
    _copy_home(settings.home, draft / HOME)
    files = {path.relative_to(draft).as_posix(): measured(path) for path in sorted(draft.rglob("*")) if path.is_file()}
    manifest = Manifest(
        format=FORMAT,
        sluice=own_version(),
        prefect=version("prefect"),
        created=datetime.now(UTC),
        redis_copied=redis_copied,
        prefect_copied=prefect_copied,
        own_redis=own_redis,
        redis_database=redis_database,
        files=files,
    )
    (draft / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for path in (*draft.rglob("*"), draft):
        _synchronize(path)
    return manifest


def copy_sqlite(database: Path, file: Path) -> None:
    """Copy a database as of one moment, while others write to it."""
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=60)) as source,
            closing(sqlite3.connect(file)) as copy,
        ):
            source.backup(copy)
    except sqlite3.Error as error:
        raise TransientError(f"{database} cannot be copied: {error}") from error


def dump_postgresql(url: str, file: Path) -> None:
    """`pg_dump` of Prefect's database, for `pg_restore`. Raises `ConfigError` without that tool."""
    tool = shutil.which("pg_dump")
    if tool is None:
        raise ConfigError(
            f"Prefect's database is a PostgreSQL ({DATABASE_VARIABLE}) and there is no pg_dump here: install "
            "PostgreSQL's client, of the server's version or a newer one"
        )
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    command = [tool, "--format=custom", "--no-owner", f"--file={file}"]
    done = subprocess.run(  # noqa: S603 - the command is ours
        command, env={**os.environ, **libpq_environment(url)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise TransientError(f"pg_dump ended with code {done.returncode}: {done.stderr.strip()[-500:]}")


def libpq_environment(url: str) -> Mapping[str, str]:
    """Return the address as environment variables of PostgreSQL's tools.

    In their arguments, the list of processes would show the password. TLS is set as in the URL
    or in Prefect's own settings.
    """
    parts = urlsplit(url)
    asked = dict(parse_qsl(parts.query))
    tls = os.environ if os.environ.get(f"{_TLS}ENABLED", "").lower() in {"1", "true"} else {}
    verified = "verify-ca" if tls.get(f"{_TLS}CHECK_HOSTNAME", "").lower() in {"0", "false"} else "verify-full"
    told = {
        "PGSSLMODE": asked.get("sslmode") or asked.get("ssl") or (verified if tls else None),
        "PGSSLROOTCERT": asked.get("sslrootcert") or tls.get(f"{_TLS}CA_FILE"),
        "PGSSLCERT": asked.get("sslcert") or tls.get(f"{_TLS}CERT_FILE"),
        "PGSSLKEY": asked.get("sslkey") or tls.get(f"{_TLS}KEY_FILE"),
        "PGHOST": parts.hostname,
        "PGPORT": str(parts.port) if parts.port else None,
        "PGUSER": unquote(parts.username) if parts.username else None,
        "PGPASSWORD": unquote(parts.password) if parts.password else None,
        "PGDATABASE": parts.path.lstrip("/"),
    }
    return {name: value for name, value in told.items() if value}


def _copy_home(home: Path, target: Path) -> None:
    """Copy the home's passwords, and the results of tasks and the settings that Prefect keeps beside its database."""
    target.mkdir(mode=_PRIVATE)
    if (home / CREDENTIALS).exists():
        shutil.copy2(home / CREDENTIALS, target / CREDENTIALS)
    if (home / "prefect").is_dir():
        shutil.copytree(
            home / "prefect",
            target / "prefect",
            ignore=lambda folder, names: [
                name for name in names if name.startswith(SQLITE) or not _is_plain(Path(folder, name))
            ],
        )


def _is_plain(path: Path) -> bool:
    return not path.is_symlink() and (path.is_file() or path.is_dir())


def measured(path: Path) -> CopiedFile:
    """Return size and digest of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return CopiedFile(size=file.tell(), sha256=digest)


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
