"""A Prefect client for each test, and a world on the session's servers."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog

from services.prefect_api.client import PrefectApi, connect
from services.store.connection import AsyncRedis
from tests.integration.delivery.world import World


@pytest_asyncio.fixture
async def prefect(prefect_url: str) -> AsyncIterator[PrefectApi]:
    async with connect() as api:
        assert api.url == prefect_url
        yield api


@pytest_asyncio.fixture
async def world(redis: AsyncRedis, prefect: PrefectApi) -> World:
    return World(redis, prefect)


@pytest.fixture
def addressed(valkey_url: str, prefect_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find the session's servers, and a home of the test's own."""
    monkeypatch.setenv("SLUICE_REDIS_URL", valkey_url)
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _logs_to_standard_error() -> Iterator[None]:
    """What commands print under test stays free of the log lines of the parts that run beside them."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
    yield
    structlog.reset_defaults()
