"""What the canary leaves in Prefect is deleted, also what came after its flight had failed, and nobody else's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from config.health import CANARY
from events.errors import NotFound
from services.prefect_api.client import PrefectApi
from services.runs.canary_cleaner import CanaryCleaner
from services.store.canary.flights import CanaryRecords, Remains
from services.store.connection import AsyncRedis
from tests.support.waiting import eventually


async def made(prefect: PrefectApi, *tags: str, minutes_ago: float) -> str:
    flow = await prefect.request("POST", "/flows/", json={"name": "sluice-canary"})
    due = (datetime.now(UTC) - timedelta(minutes=minutes_ago)).isoformat()
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
    body: dict[str, Any] = {"flow_id": flow["id"], "tags": list(tags), "state": state}
    return str((await prefect.request("POST", "/flow_runs/", json=body))["id"])


async def is_there(prefect: PrefectApi, run_id: str) -> bool:
    try:
        await prefect.request("GET", f"/flow_runs/{run_id}")
    except NotFound:
        return False
    return True


async def test_what_a_flight_left_and_what_came_too_late_is_deleted(prefect: PrefectApi, redis: AsyncRedis) -> None:
    rule = f"rule:{CANARY}"
    left, late = await made(prefect, rule, minutes_ago=0), await made(prefect, rule, minutes_ago=60)
    flying, users = await made(prefect, rule, minutes_ago=1), await made(prefect, "rule:pay", minutes_ago=60)
    await CanaryRecords(redis).leave(Remains(signal_id="signal", rule=CANARY, run_ids=[left]))
    cleaning = asyncio.create_task(CanaryCleaner(redis, prefect=prefect).run())
    try:
        for run_id in (left, late):
            await eventually(lambda run_id=run_id: _gone(prefect, run_id), what="the run to be deleted")
    finally:
        cleaning.cancel()
        await asyncio.wait({cleaning})
    assert await is_there(prefect, flying)
    assert await is_there(prefect, users)


async def _gone(prefect: PrefectApi, run_id: str) -> bool:
    return not await is_there(prefect, run_id)
