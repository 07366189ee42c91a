"""A Prefect client for each test, and a world on the session's servers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

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
