"""The servers of the test session are real and reachable through our own doors."""

from __future__ import annotations

from services.prefect_api.client import connect
from services.store.connection import AsyncRedis


async def test_valkey_answers(redis: AsyncRedis) -> None:
    assert await redis.ping()


async def test_prefect_answers(prefect_url: str) -> None:
    async with connect() as api:
        assert api.url == prefect_url
        assert await api.request("GET", "/health") is True
