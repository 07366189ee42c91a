"""A role that starts while Redis is away leaves the state of a newer program, or of another project, alone."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
import redis as redis_py

from config.settings import RedisSettings
from services.local.embedded_servers import Server
from services.store.state.installation import PROJECT
from services.store.state_version import KEY, STATE_VERSION
from tests.support.valkeys import OwnValkey
from tests.support.waiting import wait_until

ANOTHERS = {
    "newer Sluice": (KEY, str(STATE_VERSION + 1)),
    "this Redis holds the project": (PROJECT, json.dumps({"name": "another", "folder": "/another", "host": "h"})),
}


@pytest.mark.parametrize(
    ("role", "sentence"),
    [
        *((role, "newer Sluice") for role in ("listeners", "router", "resumer", "executor", "api")),
        *((role, "this Redis holds the project") for role in ("router", "api")),
    ],
)
async def test_a_role_started_without_redis_refuses_the_state_of_another(
    checkout: Path, tmp_path: Path, prefect_url: str, role: str, sentence: str
) -> None:
    valkey = OwnValkey(tmp_path / "valkey", RedisSettings(fsync="always"))
    (tmp_path / "sluice.yaml").write_text("name: mine\nrules: []\n")
    log = tmp_path / "role.log"
    try:
        await asyncio.to_thread(valkey.start)
        with redis_py.Redis.from_url(valkey.url) as client:
            client.set(*ANOTHERS[sentence])
            before = _kept(client)
        valkey.kill()
        env = {
            **os.environ, "SLUICE_HOME": str(tmp_path / "home"), "SLUICE_CONFIG": str(tmp_path / "sluice.yaml"),
            "SLUICE_REDIS_URL": valkey.url, "PREFECT_API_URL": prefect_url, "SLUICE_PORTS__API": "0",
            "SLUICE_REDIS__CONNECT_TIMEOUT_SECONDS": "1",
        }  # fmt: skip
        server = Server(role, [sys.executable, "-m", "services.cli", "run", role], log_file=log, env=env, cwd=checkout)
        try:
            await asyncio.to_thread(
                wait_until,
                lambda: _says(log, "role started") or server.process.poll() is not None,
                what="the role, without Redis",
            )
            await asyncio.to_thread(valkey.start)
            assert await asyncio.to_thread(server.process.wait, 90) == 2, log.read_text()
        finally:
            server.stop()
        assert sentence in log.read_text()
        with redis_py.Redis.from_url(valkey.url) as client:
            assert _kept(client) == before
    finally:
        valkey.stop()


def _says(log: Path, words: str) -> bool:
    return log.exists() and words in log.read_text()


def _kept(client: redis_py.Redis) -> dict[bytes, bytes]:
    """Everything but the role's own report and what it has counted."""
    own = (b"sluice:role:", b"sluice:metrics")
    return {key: client.dump(key) for key in client.scan_iter() if not key.startswith(own)}
