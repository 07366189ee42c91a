"""Prefect servers of the tests' own. A database is migrated once in a test run: that takes half of a first start.

``TEST_PREFECT_SERVER_PYTHON`` names the interpreter of an environment with another version of Prefect for the servers
(``make test-prefect``); the client is the Prefect of the interpreter that runs the tests.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from services.common.prefect_probe import prefect_problem
from services.local.embedded_servers import Server, claim_port, start_prefect
from tests.support import warm
from tests.support.waiting import wait_until

SERVER_PYTHON = os.environ.get("TEST_PREFECT_SERVER_PYTHON") or sys.executable

_template: Path | None = None


def share_database(path: Path) -> None:
    """Where the test run's workers find what the first of them has migrated."""
    global _template  # noqa: PLW0603 - one for a process, known once pytest has its folders
    _template = path


def start_migrated(
    home: Path,
    port: int,
    *,
    extra_env: Mapping[str, str] | None = None,
    auth_string: str | None = None,
    python: str = SERVER_PYTHON,
    allowed_hosts: Sequence[str] = (),
) -> tuple[Server, str]:
    """`start_prefect` on a database that is new, and migrated where another one has been."""
    database = home / "prefect.db"
    if _template is not None and _template.exists() and not database.exists():
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_template, database)
    log_file = home / "server.log"
    server, url = start_prefect(
        home,
        port,
        log_file=log_file,
        extra_env=extra_env,
        auth_string=auth_string,
        python=python,
        allowed_hosts=allowed_hosts,
        template=warm.interpreter(),
    )
    _keep(database)
    return server, url


def _keep(database: Path) -> None:
    if _template is not None and not _template.exists():
        part = database.with_suffix(".part")
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(part)) as copy:
            source.backup(copy)
        part.rename(_template)


@contextmanager
def own_prefect(
    home: Path, environment: Mapping[str, str] | None = None, *, python: str = SERVER_PYTHON
) -> Iterator[str]:
    """The API URL of a server that lives as long as the block."""
    server, url = start_migrated(home, claim_port(0, "a free port"), extra_env=environment, python=python)
    try:
        yield url
    finally:
        server.stop()


@contextmanager
def prefect_on(database: str, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """The API URL of a server on the PostgreSQL ``database`` (as `tests.support.databases` names it)."""
    settings = {
        "PREFECT_API_DATABASE_CONNECTION_URL": database.replace("+psycopg", "+asyncpg"),
        "PREFECT_API_DATABASE_MIGRATE_ON_START": "true",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "true",
        "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
        **(environment or {}),
    }
    server, url = start_prefect(
        folder, claim_port(0, "a free port"), log_file=folder / "server.log", extra_env=settings, python=SERVER_PYTHON
    )
    try:
        wait_until(lambda: prefect_problem(url) is None, what="its first answer, which asks the database")
        yield url
    finally:
        server.stop()
