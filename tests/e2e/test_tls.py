"""The whole way under TLS: Redis, Prefect's API and its PostgreSQL, the flows' database, and Sluice's own API.

Each has a certificate of one authority of the user's own, which no system trusts.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from services.local.backup.making import libpq_environment
from tests.support.certificates import Authority
from tests.support.databases import postgresql
from tests.support.installation import Installation
from tests.support.prefects import prefect_on
from tests.support.proxy import Proxy
from tests.support.valkeys import own_valkey
from tests.support.waiting import wait_until

PREFIX = "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_TLS_"

pytestmark = pytest.mark.timeout(600)


@asynccontextmanager
async def secured(folder: Path, authority: Authority) -> AsyncIterator[Installation]:
    """`sluice up` on servers that are reached through TLS, and with TLS itself."""
    shown = authority.issue("server")
    tls = authority.server(shown)
    own, ca = authority.issue("client"), str(authority.file)
    with (
        postgresql(tls=shown) as database,
        own_valkey(folder / "valkey") as valkey,
        prefect_on(database, folder / "prefect", {f"{PREFIX}ENABLED": "true", f"{PREFIX}CA_FILE": ca}) as prefect,
    ):
        async with (
            Proxy(valkey.port, tls=authority.server(shown, asks_for_certificates=True)) as to_redis,
            Proxy(int(urlsplit(prefect).port or 0), tls=tls) as to_prefect,
        ):
            env = {
                "SLUICE_REDIS_URL": f"rediss://localhost:{to_redis.port}/0",
                "SLUICE_REDIS__CA_FILE": str(authority.file),
                "SLUICE_REDIS__CERTIFICATE_FILE": str(own.certificate),
                "SLUICE_REDIS__KEY_FILE": str(own.key),
                "PREFECT_API_URL": f"https://localhost:{to_prefect.port}/api",
                "PREFECT_API_SSL_CERT_FILE": str(authority.file),
                "SLUICE_DATABASE_URL": f"{database}?sslmode=verify-full&sslrootcert={authority.file}",
                "SLUICE_API__CERTIFICATE_FILE": str(shown.certificate),
                "SLUICE_API__KEY_FILE": str(shown.key),
            }
            running = Secured(folder / ".sluice", env=env, tls=authority.client(own), plain_prefect=prefect)
            await asyncio.to_thread(running.start)
            try:
                yield running
            finally:
                await asyncio.to_thread(running.stop)


class Secured(Installation):
    """Asks the servers themselves, around the proxies."""

    def __init__(self, home: Path, *, env: dict[str, str], tls: ssl.SSLContext, plain_prefect: str) -> None:
        super().__init__(home, env=env)
        self.tls = tls
        self._plain_prefect = plain_prefect

    def start(self) -> None:
        super().start()
        self.prefect = httpx.Client(base_url=self._plain_prefect, timeout=60)
        self._stack.callback(self.prefect.close)


async def test_an_order_and_a_file_come_through_where_every_connection_is_encrypted(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    async with secured(tmp_path, authority) as running:
        await asyncio.to_thread(_play, running, authority)


def _play(running: Installation, authority: Authority) -> None:
    assert isinstance(running, Secured)
    order = uuid.uuid4().hex[:8]
    api = str(running.access["SLUICE_API_URL"])
    assert api.startswith("https://")
    event = {"specversion": "1.0", "id": order, "source": "shop", "type": "order.created"}
    with httpx.Client(base_url=api.replace("127.0.0.1", "localhost"), verify=running.tls, timeout=60) as client:
        headers = {"content-type": "application/cloudevents+json"}
        if token := running.access["SLUICE_API_TOKEN"]:
            headers["authorization"] = f"Bearer {token}"
        sent = client.post("/events", json={**event, "data": {"order_id": order, "amount": 1}}, headers=headers)
        assert sent.status_code == 202, sent.text
        run = wait_until(
            lambda: next((run for run in running.runs("order-approval") if run["state_name"] == "Paused"), None),
            what="the order waits",
        )
        running.sluice("signals", "send", "--key", f"order-{order}", "--input", '{"approved": true}')
        wait_until(
            lambda: running.runs("order-approval", id={"any_": [run["id"]]})[0]["state_type"] == "COMPLETED",
            what="the answered order is completed",
        )
    inbox = Path(running.status["watches"]["inbox"])
    (inbox / "cities.csv").write_text("city\nOslo\n")
    wait_until((inbox / "done" / "cities.csv").exists, what="the file is loaded and archived")
    url = running.env["SLUICE_DATABASE_URL"]
    told = subprocess.run(
        ["psql", "-X", "-A", "-t", "-c", "SELECT city FROM cities"],
        env={**os.environ, **libpq_environment(url)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == "Oslo"
    assert json.loads(running.sluice("status", "--json").stdout)["ready"]
    checked = running.sluice("check")
    assert "certificate" not in checked.stdout + checked.stderr
    backup = running.sluice("backup", str(running.home.parent / "backup"), "--json", check=False, within_seconds=120)
    assert backup.returncode == 0, backup.stderr
