"""A client of the session's Prefect server, and runs that nothing executes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from services.prefect_api.client import PrefectApi, connect
from tests.integration.delivery.world import deployment


@pytest_asyncio.fixture
async def api(prefect_url: str) -> AsyncIterator[PrefectApi]:
    async with connect() as found:
        assert found.url == prefect_url
        yield found


@pytest_asyncio.fixture
async def name(api: PrefectApi) -> str:
    """``flow/deployment`` of a deployment of the test's own."""
    return await deployment(api)


async def new_run(api: PrefectApi, flow: str, kind: str = "SCHEDULED", *, name: str | None = None,
                  tags: tuple[str, ...] = (), **state: Any) -> str:  # fmt: skip
    """A run of the flow in a state of its own, without a deployment; answers its id."""
    flow_id = (await api.request("POST", "/flows/", json={"name": flow}))["id"]
    body = {"flow_id": flow_id, "name": name, "tags": list(tags), "state": {"type": kind, **state}}
    return str((await api.request("POST", "/flow_runs/", json={k: v for k, v in body.items() if v is not None}))["id"])
