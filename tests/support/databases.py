"""Database servers of the tests' own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest

from services.local.embedded_servers import claim_port
from tests.support.certificates import Pair
from tests.support.waiting import wait_until


@contextmanager
def postgresql(tls: Pair | None = None) -> Iterator[str]:
    """A PostgreSQL server, as a SQLAlchemy URL; the test is skipped where it is not installed.

    With ``tls`` it shows that certificate, and takes no connection without TLS.
    """
    with database_home("initdb", "pg_ctl") as (directory, user, tools):
        port = claim_port(0, "a free port")

        def call(*command: str) -> None:
            subprocess.run(command, check=True, capture_output=True, cwd="/", **user)

        data = str(directory / "data")
        call(tools["initdb"], "-D", data, "-U", "sluice", "-A", "trust")
        options = f"-p {port} -k {directory} -c listen_addresses=127.0.0.1 -c fsync=off"
        if tls is not None:
            for source, name in ((tls.certificate, "server.crt"), (tls.key, "server.key")):
                target = directory / "data" / name
                shutil.copyfile(source, target)
                target.chmod(0o600)
                shutil.chown(target, **({"user": "nobody"} if user else {"user": os.getuid()}))
            (directory / "data" / "pg_hba.conf").write_text("hostssl all all all trust\n")
            options += " -c ssl=on"
        control = (tools["pg_ctl"], "-D", data)
        call(*control, "-o", options, "-l", str(directory / "log"), "-w", "start")
        try:
            yield f"postgresql+psycopg://sluice@127.0.0.1:{port}/postgres"
        finally:
            call(*control, "-m", "immediate", "stop")


@contextmanager
def mariadb() -> Iterator[str]:
    """A MariaDB server, as a SQLAlchemy URL; the test is skipped where it is not installed."""
    with database_home("mariadbd", "mariadb-install-db") as (directory, user, tools):
        port = claim_port(0, "a free port")
        data = directory / "data"
        install = (
            tools["mariadb-install-db"],
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
        )
        subprocess.run([*install, "--skip-test-db"], check=True, capture_output=True, cwd="/", **user)
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(
                [
                    tools["mariadbd"], "--no-defaults", f"--datadir={data}", f"--socket={directory / 'socket'}",
                    f"--port={port}", "--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=0",
                ],
                stdout=subprocess.DEVNULL, stderr=log, cwd="/", **user,
            )  # fmt: skip
        try:
            wait_until(lambda: _answers(port), what="MariaDB answers")
            yield f"mariadb+pymysql://root@127.0.0.1:{port}/test"
        finally:
            server.terminate()
            server.wait(60)


def _answers(port: int) -> bool:
    try:
        with closing(pymysql.connect(host="127.0.0.1", port=port, user="root")) as connection:
            connection.cursor().execute("CREATE DATABASE IF NOT EXISTS test")
    except pymysql.err.OperationalError:
        return False
    return True


@contextmanager
def database_home(*needed: str) -> Iterator[tuple[Path, dict[str, Any], dict[str, str]]]:
    """A short path, options for processes that must not run as root, and where the tools are."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    tools = {name: found for name in needed if (found := shutil.which(name, path=path))}
    if len(tools) < len(needed):
        pytest.skip(f"not installed: {', '.join(set(needed) - set(tools))}")
    directory = Path(tempfile.mkdtemp(prefix="sluice-db-", dir="/tmp"))
    user: dict[str, Any] = {}
    if os.getuid() == 0:  # they refuse to run as root
        shutil.chown(directory, "nobody")
        user = {"user": "nobody"}
    try:
        yield directory, user, tools
    finally:
        shutil.rmtree(directory, ignore_errors=True)
