"""Fixtures: one real Valkey and one real Prefect server for the whole session, on free ports."""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio

from config.settings import RedisSettings
from services.local.embedded_servers import claim_port, start_valkey
from services.store.connection import AsyncRedis, connect
from tests.support import open_connections, prefects

# No test asserts on a stopwatch, and a busy machine makes no property false.
hypothesis.settings.register_profile(
    "sluice", deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("sluice")

# Prefect reads its settings once, when it is first imported: the server's address must be known before that.
_PREFECT_PORT = claim_port(0, "a free port")
os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{_PREFECT_PORT}/api"
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="sluice-test-prefect-")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"

from prefect._internal.concurrency import services  # noqa: E402 - now it may be imported


@pytest.fixture(scope="session", autouse=True)
def _one_migration(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    prefects.share_database((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "prefect.db")


open_connections.watch()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    """The test that leaves a connection open fails, and not the one that runs when it is collected."""
    yield
    left = open_connections.left_open()
    assert not left, f"left open: {left}"


def pytest_collection_finish() -> None:
    """What is imported by now stays: to search it for garbage again and again takes a twentieth of the tests' time."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Flows of tests leave events for servers that are gone; Prefect's client would try each for long, at exit."""
    for service in list(services._active_services):
        with contextlib.suppress(queue.Empty):
            while True:
                service._queue.get_nowait()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SLUICE_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL (database 0) of a Valkey that lives as long as the test session."""
    home = tmp_path_factory.mktemp("valkey")
    server, url = start_valkey(home, claim_port(0, "a free port"), RedisSettings(), log_file=home / "valkey.log")
    yield url
    server.stop()


@pytest_asyncio.fixture
async def redis(valkey_url: str) -> AsyncIterator[AsyncRedis]:
    """A client on an emptied Valkey. Every key left behind must be Sluice's own (or RQ's), or the test fails."""
    client = connect(valkey_url, RedisSettings())
    await client.flushdb()
    yield client
    foreign = [key async for key in client.scan_iter() if not key.startswith((b"sluice", b"rq:", b"test:"))]
    await client.flushdb()
    await client.aclose()
    assert not foreign, f"keys outside Sluice's names: {foreign[:5]}"


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API URL of a Prefect server on SQLite that lives as long as the test session."""
    home = tmp_path_factory.mktemp("prefect")
    server, url = prefects.start_migrated(home, _PREFECT_PORT)
    yield url
    server.stop()


@pytest.fixture
def checkout() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parent.parent
