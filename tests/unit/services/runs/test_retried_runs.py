"""A burst of scheduled runs, of which none may have a file, keeps nothing else from Redis."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast
from uuid import uuid4

from config.settings import HistorySettings, JournalSettings, RedisSettings
from services.prefect_api.client import PrefectApi
from services.prefect_api.runs import StateChange
from services.runs.retried_runs import RetriedRuns
from services.store.connection import connect
from services.store.files.returns import FileReturns
from tests.support.waiting import eventually


async def test_many_runs_at_once_are_asked_about_a_few_at_a_time(valkey_url: str) -> None:
    async with connect(valkey_url, RedisSettings()) as redis:
        returns = FileReturns(redis, journal=JournalSettings(), history=HistorySettings())
        retried = RetriedRuns(prefect=cast(PrefectApi, None), returns=returns)
        for _ in range(300):
            retried.heard(StateChange(str(uuid4()), None, "SCHEDULED", "Scheduled", datetime.now(UTC), ""))

        async def all_asked() -> bool:
            return not retried._tasks

        await eventually(all_asked, what="every run was asked about")
        assert len(redis.connection_pool._available_connections) <= 10
