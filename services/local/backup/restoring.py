"""`sluice restore`: an installation as it was when it was backed up, in a home where none runs."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from config.settings import RedisSettings, Settings
from events.errors import ConfigError, TransientError
from services.home.home import Home
from services.local.backup.making import CREDENTIALS, HOME, POSTGRESQL, REDIS, SQLITE, Manifest
from services.local.embedded_servers import claim_port, start_valkey
from services.store.connection import connect_sync
from services.store.runs.executions import note_restored
from services.store.state.version import check_state

_KEPT: Final = ("valkey", "prefect", CREDENTIALS)
"""What of a home is in a backup, and is put in place of what is there."""

_AOF_MANIFEST: Final = "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"


def restore(settings: Settings, folder: Path, *, replace: bool, say: Callable[[str], None]) -> Manifest:
    """Put the backup in ``folder`` into the home of ``settings``, after every file of it has been checked.

    Raises `ConfigError`, with nothing touched, for a backup that is incomplete, damaged or of a newer program, where an
    installation runs, and where the home holds one, unless it is to be replaced: then that is moved to
    ``replaced-TIME/`` in the home.
    """
    manifest = Manifest.read(folder)
    manifest.verify(folder)
    home = settings.home
    with Home(home).locked():
        there = [name for name in _KEPT if (home / name).exists()]
        if {"valkey", "prefect"} & set(there) and not replace:
            raise ConfigError(
                f"{home} holds an installation: name another --home, or say --replace, which moves what is there to a "
                f"folder replaced-… in it"
            )
        draft = home / f"restoring-{os.getpid()}"
        try:
            _lay_out(folder, draft, manifest)
            if there:
                old = home / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
                old.mkdir(mode=0o700)
                for name in there:
                    (home / name).rename(old / name)
                say(f"what was there is in {old} now")
            for part in draft.iterdir():
                part.rename(home / part.name)
        except OSError as error:
            raise TransientError(f"the backup could not be put into {home}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    if not manifest.own_redis:
        say(f"note: this Redis was not one of `sluice up`: give {folder / REDIS} to your server (docs/backup.md)")
    if POSTGRESQL in manifest.files:
        say(f"note: Prefect's database goes back with `pg_restore --clean --if-exists -d DB {folder / POSTGRESQL}`")
    elif SQLITE not in manifest.files:
        say("warning: the backup has no database of Prefect: restore the one that belongs to it before anything runs")
    return manifest


def _lay_out(folder: Path, draft: Path, manifest: Manifest) -> None:
    """The backup as the home has it, in a folder beside its place."""
    shutil.copytree(folder / HOME, draft, copy_function=shutil.copy2)
    draft.chmod(0o700)
    if manifest.own_redis:
        log = draft / "valkey" / "appendonlydir"
        log.mkdir(mode=0o700, parents=True)
        # Valkey that appends to a file reads no RDB but the one that its list of files begins with.
        shutil.copyfile(folder / REDIS, log / "appendonly.aof.1.base.rdb")
        (log / "appendonly.aof.1.incr.aof").touch()
        (log / "appendonly.aof.manifest").write_text(_AOF_MANIFEST, encoding="ascii")
        _note(draft, manifest)
    if SQLITE in manifest.files:
        (draft / "prefect").mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(folder / SQLITE, draft / "prefect" / SQLITE)


def _note(draft: Path, manifest: Manifest) -> None:
    """Have a Valkey read the state, and write down in it that the processes of the runs are gone.

    Raises `TransientError` for a state that this Valkey does not read, and `ConfigError` for one of a newer Sluice.
    """
    private = RedisSettings(password=secrets.token_urlsafe(32))
    port = claim_port(0, "a free port")
    server, url = start_valkey(draft / "valkey", port, private, log_file=draft / "valkey.log")
    try:
        with connect_sync(url, private) as redis:
            check_state(redis)
            note_restored(
                redis, f"The run's process ended with the installation that was backed up {manifest.created}."
            )
    finally:
        server.stop()
    (draft / "valkey.log").unlink()
