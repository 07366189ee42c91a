"""`sluice restore`: puts a backup into a home, and into servers, where no installation runs."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from config.settings import RedisSettings, Settings
from events.errors import ConfigError, TransientError
from services.home.home import Home
from services.local.backup.into_servers import OwnPostgres, OwnRedis, refuse
from services.local.backup.making import CREDENTIALS, DATABASE_VARIABLE, HOME, POSTGRESQL, REDIS, SQLITE, Manifest
from services.local.embedded_servers import claim_port, start_valkey
from services.store.connection import SyncRedis, connect_sync
from services.store.runs.executions import note_restored
from services.store.state.installation import check_state

_KEPT: Final = ("valkey", "prefect", CREDENTIALS)
"""The parts of a home that are in a backup and replace existing ones."""

_AOF_MANIFEST: Final = "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"


def restore(settings: Settings, folder: Path, *, replace: bool, say: Callable[[str], None]) -> Manifest:
    """Put the backup in ``folder`` into the home of ``settings``, and into the servers that the environment names.

    Every file is checked first. Raises `ConfigError`, with nothing changed, for a backup that is incomplete, damaged or
    of a newer version, if an installation runs, and if the home or a server holds one, unless ``replace`` is set: then
    the home's is moved to ``replaced-TIME/`` in it, and a server's is deleted.
    """
    manifest = Manifest.read(folder)
    manifest.verify(folder)
    home = settings.home
    url, database = settings.redis_url_with_password, os.environ.get(DATABASE_VARIABLE, "")
    redis = OwnRedis(settings, url) if url is not None else None
    dumped = POSTGRESQL in manifest.files
    postgres = OwnPostgres(settings, database) if dumped and database.startswith("postgresql") else None
    with Home(home).locked():
        there = [name for name in _KEPT if (home / name).exists()]
        if {"valkey", "prefect"} & set(there) and not replace:
            raise ConfigError(
                f"{home} holds an installation: name another --home, or say --replace, which moves what is there to a "
                f"folder replaced-… in it"
            )
        refuse([target for target in (redis, postgres) if target is not None], replace=replace)
        draft = home / f"restoring-{os.getpid()}"
        try:
            _lay_out(folder, draft, manifest)
            if redis is not None or manifest.own_redis:
                _lay_out_redis(folder, draft, manifest, redis, say=say)
            if postgres is not None:
                postgres.fill(folder / POSTGRESQL)
                say(f"Prefect's database is in {postgres.where} now")
            _put_in_place(home, draft, there, say=say)
        except OSError as error:
            raise TransientError(f"the backup could not be put into {home}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    _say_what_is_left(manifest, redis=redis, postgres=postgres, say=say)
    return manifest


def _say_what_is_left(
    manifest: Manifest, *, redis: OwnRedis | None, postgres: OwnPostgres | None, say: Callable[[str], None]
) -> None:
    """Warn of parts of the installation that the backup does not restore."""
    dumped = POSTGRESQL in manifest.files
    if redis is None and not manifest.own_redis:
        say("warning: this Redis was not one of `sluice up`, and was not restored: set SLUICE_REDIS_URL for that")
    if dumped and postgres is None:
        say(f"warning: Prefect's database was not restored: set {DATABASE_VARIABLE} for that (docs/backup.md)")
    elif SQLITE not in manifest.files and not dumped:
        say("warning: the backup has no database of Prefect: restore the one that belongs to it before anything runs")


def _put_in_place(home: Path, draft: Path, there: Sequence[str], *, say: Callable[[str], None]) -> None:
    """Move the restored parts into the home; what was there is moved aside, not deleted."""
    if there:
        old = home / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        old.mkdir(mode=0o700)
        for name in there:
            (home / name).rename(old / name)
        say(f"what was there is in {old} now")
    for part in draft.iterdir():
        part.rename(home / part.name)


def _lay_out(folder: Path, draft: Path, manifest: Manifest) -> None:
    """Prepare the backup in the home's layout, in a folder beside the final place."""
    shutil.copytree(folder / HOME, draft, copy_function=shutil.copy2)
    draft.chmod(0o700)
    if SQLITE in manifest.files:
        (draft / "prefect").mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(folder / SQLITE, draft / "prefect" / SQLITE)


def _lay_out_redis(
    folder: Path, draft: Path, manifest: Manifest, target: OwnRedis | None, *, say: Callable[[str], None]
) -> None:
    """Prepare the state in Redis in the home's layout; with a ``target``, copy it there instead."""
    log = draft / "valkey" / "appendonlydir"
    log.mkdir(mode=0o700, parents=True)
    # A Valkey with an append-only file reads an RDB only if its manifest begins with it.
    shutil.copyfile(folder / REDIS, log / "appendonly.aof.1.base.rdb")
    (log / "appendonly.aof.1.incr.aof").touch()
    (log / "appendonly.aof.manifest").write_text(_AOF_MANIFEST, encoding="ascii")
    with _valkey_of(draft, manifest) as redis:
        check_state(redis)
        note_restored(redis, f"The run's process ended with the installation that was backed up {manifest.created}.")
        if target is not None:
            say(f"{target.fill(redis)} keys are in the Redis at {target.where} now")
    if target is not None:
        shutil.rmtree(draft / "valkey")


@contextmanager
def _valkey_of(draft: Path, manifest: Manifest) -> Iterator[SyncRedis]:
    """Yield an embedded Valkey that has loaded the state, and the database that was Sluice's.

    Raises `TransientError` for a state that this Valkey does not read.
    """
    private = RedisSettings(password=secrets.token_urlsafe(32))
    port = claim_port(0, "a free port")
    server, url = start_valkey(draft / "valkey", port, private, log_file=draft / "valkey.log")
    try:
        with connect_sync(f"{url.removesuffix('/0')}/{manifest.redis_database}", private) as redis:
            yield redis
    finally:
        server.stop()
    (draft / "valkey.log").unlink()
