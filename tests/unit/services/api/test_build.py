"""The API's routes as they are put together: those that act come before those whose paths match any id."""

from __future__ import annotations

from fastapi import FastAPI

from config.settings import Settings
from services.api.build import build_routers
from services.prefect_api.client import PrefectApi
from services.signals.submission import SignalSubmission
from services.store.connection import AsyncRedis, connect_sync
from services.store.signals.signals import SignalStore
from tests.unit.services.listeners.http.serving import LIMITS


async def no_prefect() -> PrefectApi:
    raise AssertionError("nothing is asked while the routes are put together")


async def test_an_id_cannot_hide_a_route_that_acts(redis: AsyncRedis, valkey_url: str) -> None:
    settings = Settings()
    with connect_sync(valkey_url, settings.redis) as rq_redis:
        submission = SignalSubmission(store=SignalStore(redis, settings.resumer), rq_redis=rq_redis, limits=LIMITS)
        app = FastAPI()
        for router in build_routers(redis, settings, submission, no_prefect, "shop"):
            app.include_router(router)
    calls = [(method, path) for path, found in app.openapi()["paths"].items() for method in found]
    assert calls.index(("post", "/events/{id}/replay")) < calls.index(("get", "/events/{id}"))
    assert ("post", "/signals/links") in calls
    assert ("delete", "/dead-letters/{id}") in calls
    assert await redis.dbsize() == 0
