"""A project's own HTTP routes: served by a process of their own, behind the listener's guard, token and limits."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil

from config.api import ApiSettings
from services.listeners.http.endpoints import Endpoints
from services.store.connection import AsyncRedis
from tests.support.sources import running
from tests.support.waiting import eventually
from tests.unit.services.listeners.http.serving import LIMITS, Site, serving

ROUTES = """
from __future__ import annotations

import os

from config import WORD  # the project's own package, though the listener's process has one of that name
from fastapi import APIRouter, Request, Response

router = APIRouter()


@router.post("/orders/{order_id:path}")
async def order(order_id: str, request: Request, response: Response, note: str = "") -> dict[str, object]:
    response.headers["x-own"] = "yes"
    return {
        "order": order_id,
        "note": note,
        "body": (await request.body()).decode(),
        "word": WORD,
        "from": request.client.host,
        "given": request.headers.get("x-given"),
        "token": request.headers.get("authorization"),
        "redis": os.environ["SLUICE_REDIS_URL"],
        "url": str(request.url),
    }


@router.get("/broken")
def broken() -> None:
    raise RuntimeError("as flows and endpoints do")


@router.get("/pid")
def pid() -> int:
    return os.getpid()
"""
CLAIMED = {"x-given": "by caller", "x-forwarded-for": "10.0.0.1", "x-forwarded-proto": "https"}
TOKEN = {"authorization": "Bearer secret"}


def project(folder: Path, routes: str = ROUTES) -> Endpoints:
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config" / "__init__.py").write_text("WORD = 'first'\n", encoding="utf-8")
    (folder / "web.py").write_text(textwrap.dedent(routes), encoding="utf-8")
    given = {"SLUICE_REDIS_URL": "redis://given"}
    return Endpoints("web:router", folder=folder, environment=given, answer_seconds=60)


@asynccontextmanager
async def served(redis: AsyncRedis, endpoints: Endpoints) -> AsyncIterator[httpx.AsyncClient]:
    site = Site(redis, ApiSettings(token="secret"), endpoints=endpoints)
    async with running(endpoints), serving(site) as client:
        yield client


async def ready(endpoints: Endpoints) -> None:
    async def there() -> bool:
        return bool(endpoints.status()["endpoints"])

    await eventually(there, what="the endpoints to be served")


async def test_own_routes_are_reached_behind_token_and_limits(redis: AsyncRedis, tmp_path: Path) -> None:
    endpoints = project(tmp_path)
    async with served(redis, endpoints) as client:
        await ready(endpoints)
        assert "POST /endpoints/orders/{order_id}" in endpoints.status()["endpoints"]
        assert (await client.post("/endpoints/orders/7", content=b"x")).status_code == 401
        answer = await client.post(
            "/endpoints/orders/a%2Fb/c?note=%C3%A4&x=1", content=b"eggs", headers={**TOKEN, **CLAIMED}
        )
        assert (answer.status_code, answer.headers["x-own"]) == (200, "yes")
        assert answer.json() == {
            "order": "a/b/c",
            "note": "ä",
            "body": "eggs",
            "word": "first",
            "from": "127.0.0.1",
            "given": "by caller",
            "token": None,
            "redis": "redis://given",
            "url": f"{client.base_url}/endpoints/orders/a/b/c?note=%C3%A4&x=1",
        }
        assert (await client.get("/endpoints/nowhere", headers=TOKEN)).status_code == 404
        assert (await client.get("/endpoints/broken", headers=TOKEN)).status_code == 500
        too_much = await client.post("/endpoints/orders/7", content=b"x" * (LIMITS.max_bytes + 1), headers=TOKEN)
        assert (too_much.status_code, too_much.json()["code"]) == (413, "too-large")
        page = await client.get("/endpoints/openapi.json", headers=TOKEN)
        assert "/orders/{order_id}" in page.json()["paths"]
        assert page.json()["servers"] == [{"url": "/endpoints"}]


async def test_a_process_that_ends_or_whose_code_has_changed_is_replaced(redis: AsyncRedis, tmp_path: Path) -> None:
    endpoints = project(tmp_path)
    async with served(redis, endpoints) as client:
        await ready(endpoints)
        pid = (await client.get("/endpoints/pid", headers=TOKEN)).json()
        os.kill(pid, signal.SIGKILL)

        async def answers(route: str, other_than: object) -> object:
            answer = await client.request("POST" if "orders" in route else "GET", route, headers=TOKEN)
            found = answer.json() if answer.is_success else None
            return found if found != other_than else None

        second = await eventually(lambda: answers("/endpoints/pid", pid), what="another process")
        (tmp_path / "config" / "__init__.py").write_text("WORD = 'the second one'\n", encoding="utf-8")

        async def changed() -> bool:
            answer = await client.post("/endpoints/orders/7", headers=TOKEN)
            return answer.is_success and answer.json()["word"] == "the second one"

        await eventually(changed, what="the changed code")
        assert (await client.get("/endpoints/pid", headers=TOKEN)).json() != second
    assert not [child for child in psutil.Process().children() if "endpoint_process" in " ".join(child.cmdline())]


async def test_code_that_does_not_import_is_told_and_holds_up_no_event(redis: AsyncRedis, tmp_path: Path) -> None:
    endpoints = project(tmp_path, "import not_there_at_all\n")
    async with served(redis, endpoints) as client:

        async def told() -> str | None:
            return endpoints.status().get("degraded")

        said = await eventually(told, what="the problem")
        assert said == "web:router: ModuleNotFoundError: No module named 'not_there_at_all'"
        answer = await client.get("/endpoints/pid", headers=TOKEN)
        assert (answer.status_code, answer.json()["code"]) == (503, "endpoints-away")
        assert said in answer.json()["detail"]
        event = {"specversion": "1.0", "id": "a", "source": "tests", "type": "t"}
        taken = await client.post(
            "/events", json=event, headers={**TOKEN, "content-type": "application/cloudevents+json"}
        )
        assert taken.status_code == 202
