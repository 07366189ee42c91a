"""The part of `sluice restore` that fills servers of the user's own: a Redis that runs, and Prefect's PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from config.canary import canary_stream
from config.project import load_project
from config.settings import Settings
from events.errors import Backpressure, ConfigError, TransientError
from events.redact import redacted
from services.common.prefect_probe import prefect_problem
from services.local.backup.making import libpq_environment
from services.operations.health import REMEMBERED_SECONDS, REPORTS, SILENT_SECONDS
from services.operations.upkeep.inspector import declared_keys
from services.store.connection import SyncRedis, connect_sync
from services.store.keys import KeyList
from services.store.redis_errors import translated

_PAGE: Final = 500
_UNFINISHED: Final = "what was put there is not whole: call it again with --replace"


class OwnRedis:
    """A running Redis of the user's own.

    Only Sluice's data in its database is considered: the keys of Sluice and RQ, and the streams and lists that are
    sources.
    """

    def __init__(self, settings: Settings, url: str) -> None:
        self._settings = settings
        self._url = url
        self.where = redacted(url)
        self._keys = KeyList(key for keys in declared_keys().values() for key in keys)
        project = load_project(settings.config, home=settings.home)
        sources = [*project.sources.redis_with_defaults().values(), *canary_stream().values()]
        self._sources = {name.encode() for one in sources for name in (one.stream, one.list) if name}

    def problems(self, *, replace: bool) -> list[str]:
        """Why nothing is put there, as sentences. Raises `TransientError`."""
        with self._client() as redis, translated():
            alive = [name for name in redis.scan_iter(match=f"{REPORTS}*", count=_PAGE) if _reports(redis, name)]
            if alive:
                return [f"roles run on the Redis at {self.where}: stop them first"]
            if not replace and any(self._names(redis)):
                return [
                    f"the Redis at {self.where} holds an installation: say --replace, which deletes what is Sluice's"
                ]
        return []

    def fill(self, source: SyncRedis) -> int:
        """Copy Sluice's data, and nothing else, from the database of ``source``; return the number of keys.

        Raises `TransientError` if that fails half-way.
        """
        try:
            with self._client() as redis, translated():
                for page in _pages(self._names(redis)):
                    redis.unlink(*page)
                names = (name for name in self._names(source) if not name.startswith(REPORTS.encode()))
                return sum(_copy(source, redis, page) for page in _pages(names))
        except (TransientError, Backpressure) as error:
            raise TransientError(f"the Redis at {self.where} takes no copy ({error}); {_UNFINISHED}") from error

    @contextmanager
    def _client(self) -> Iterator[SyncRedis]:
        with connect_sync(self._url, self._settings.redis) as redis:
            yield redis

    def _names(self, redis: SyncRedis) -> Iterator[bytes]:
        for name in redis.scan_iter(count=_PAGE):
            if name in self._sources or self._keys.of(name) is not None:
                yield name


class OwnPostgres:
    """The database of a Prefect server that `sluice up` does not run."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._prefect_url = str(settings.prefect_api_url) if settings.prefect_api_url else None
        self._environment = libpq_environment(url)
        self.where = redacted(url)

    def problems(self, *, replace: bool) -> list[str]:
        """Why nothing is put there, as sentences. Raises `TransientError`."""
        if self._prefect_url is not None and prefect_problem(self._prefect_url) is None:
            return [
                f"the Prefect server at {redacted(self._prefect_url)} runs: stop it, and start it after the restore"
            ]
        if shutil.which("pg_restore") is None:
            return ["there is no pg_restore here: install PostgreSQL's client, of the server's version or a newer one"]
        if not replace and self._tables():
            return [f"the database {self.where} holds tables: say --replace, which drops those of Prefect"]
        return []

    def fill(self, dump: Path) -> None:
        """Restore the dump, whole or not at all. Raises `TransientError`."""
        command = ["pg_restore", "--clean", "--if-exists", "--no-owner", "--single-transaction", "--exit-on-error"]
        done = subprocess.run(  # noqa: S603 - the command is ours
            [*command, f"--dbname={self._environment['PGDATABASE']}", str(dump)],
            env={**os.environ, **self._environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise TransientError(f"pg_restore ended with code {done.returncode}: {done.stderr.strip()[-500:]}")

    def _tables(self) -> int:
        """Return the number of tables in the database; raises `TransientError` if it does not respond."""
        import psycopg

        words = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password", "PGDATABASE": "dbname"}
        words |= {f"PGSSL{name}": f"ssl{name.lower()}" for name in ("MODE", "ROOTCERT", "CERT", "KEY")}
        options: dict[str, Any] = {words[name]: value for name, value in self._environment.items()}
        asked = "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema()"
        try:
            with psycopg.connect(**options, connect_timeout=10) as connection:
                found = connection.execute(asked).fetchone()
        except psycopg.Error as error:
            raise TransientError(f"the database {self.where} does not answer: {error}") from error
        return int(found[0]) if found else 0


def refuse(targets: Sequence[OwnRedis | OwnPostgres], *, replace: bool) -> None:
    """Raise `ConfigError` if one of them cannot be filled."""
    problems = [problem for target in targets for problem in target.problems(replace=replace)]
    if problems:
        raise ConfigError(*problems)


def _reports(redis: SyncRedis, name: bytes) -> bool:
    """Whether a role has reported recently."""
    left: Any = redis.pttl(name)
    return int(left) > (REMEMBERED_SECONDS - SILENT_SECONDS) * 1000


def _pages(names: Iterator[bytes]) -> Iterator[list[bytes]]:
    page: list[bytes] = []
    for name in names:
        page.append(name)
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page


def _copy(source: SyncRedis, target: SyncRedis, names: list[bytes]) -> int:
    """Return the values as the server dumps them, each with the rest of its time to live."""
    with source.pipeline(transaction=False) as asked:
        for name in names:
            asked.dump(name)
            asked.pttl(name)
        answers = asked.execute()
    rows = [(name, answers[2 * at], answers[2 * at + 1]) for at, name in enumerate(names)]
    with target.pipeline(transaction=False) as written:
        for name, payload, left_ms in rows:
            if payload is not None:
                written.restore(name, max(0, int(left_ms)), payload, replace=True)
        return len(written.execute())
