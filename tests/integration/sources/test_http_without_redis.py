"""The HTTP listener while its Redis is killed, full, and back again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from config.api import ApiSettings
from config.settings import RedisSettings
from events.signal import ResumeSignal
from events.untrusted_json import Limits
from services.listeners.http.bodies import CLOUDEVENT
from services.listeners.http.listener import HttpListener
from services.operations.readiness import Readiness
from services.store.connection import AsyncRedis, connect
from services.store.dead_letters import DeadLetters
from tests.support.sources import Door, cloudevent, running
from tests.support.valkeys import own_valkey
from tests.support.waiting import eventually

SHORT = RedisSettings(connect_timeout_seconds=1, command_timeout_seconds=3)


@asynccontextmanager
async def serving(redis: AsyncRedis) -> AsyncIterator[httpx.AsyncClient]:
    listener = HttpListener(
        settings=ApiSettings(journal_timeout_seconds=5),
        port=0,
        limits=Limits(),
        sources={},
        emit_for=lambda name: Door(redis).emit,
        submit=_submit,
        dead=DeadLetters(redis),
        readiness=_readiness,
        scrape=_nothing,
        trusts_own_user=True,
    )
    async with running(listener):
        await eventually(lambda: _listens(listener))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.port}", timeout=30) as client:
            yield client


async def _nothing(_readiness: object) -> bytes:
    return b""


async def _submit(signal: ResumeSignal) -> None:
    raise AssertionError(signal)


async def _readiness() -> Readiness:
    return Readiness()


async def _listens(listener: HttpListener) -> bool:
    return listener.port is not None


async def post(client: httpx.AsyncClient, body: bytes) -> httpx.Response:
    return await client.post("/events", content=body, headers={"content-type": CLOUDEVENT})


async def test_a_killed_redis_is_503_and_nothing_that_was_accepted_is_gone_when_it_is_back(tmp_path: Path) -> None:
    with own_valkey(tmp_path, RedisSettings(fsync="always")) as valkey:
        redis = connect(valkey.url, SHORT)
        async with serving(redis) as client:
            assert (await post(client, cloudevent("before"))).status_code == 202
            valkey.kill()
            refused = await post(client, cloudevent("during"))
            assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (503, True)
            unkept = await post(client, b"not json")
            assert unkept.status_code == 503  # it could not be kept, so it must be sent again
            assert (await client.get("/health/live")).status_code == 200
            valkey.start()
            assert (await post(client, cloudevent("during"))).json()["new"] is True
            assert (await post(client, cloudevent("before"))).json() == {
                "id": "before",
                "source": "tests",
                "new": False,
            }
        assert await Door(redis).ids() == ["before", "during"]
        await redis.aclose()


async def test_a_full_redis_is_503_until_there_is_room(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as valkey:
        redis = connect(valkey.url, SHORT)
        async with serving(redis) as client:
            assert (await post(client, cloudevent("before"))).status_code == 202
            await redis.config_set("maxmemory", int((await redis.info("memory"))["used_memory"]))
            refused = await post(client, cloudevent("during"))
            assert refused.status_code == 503
            assert "maxmemory" in refused.json()["detail"]
            await redis.config_set("maxmemory", 0)
            assert (await post(client, cloudevent("during"))).json()["new"] is True
        await redis.aclose()


async def test_a_redis_that_does_not_answer_is_503_in_bounded_time(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as valkey:
        redis = connect(valkey.url, SHORT)
        async with serving(redis) as client:
            assert (await post(client, cloudevent("before"))).status_code == 202
            valkey.hang()
            assert (await post(client, cloudevent("during"))).status_code == 503
            valkey.wake()
            assert (await post(client, cloudevent("during"))).status_code == 202
        assert await Door(redis).ids() == ["before", "during"]
        await redis.aclose()
