"""Run inputs whose request the client sends again because the answer to it was lost: it has been done already."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient, get_client

from sluice.own_run import OwnRun


class Repeating:
    """Sends the first request of each kind twice, as Prefect's client does when it hears nothing of the first."""

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._sent: Counter[str] = Counter()

    async def create_flow_run_input(self, **given: Any) -> None:
        await self._twice("create_flow_run_input", given)

    async def delete_flow_run_input(self, **given: Any) -> None:
        await self._twice("delete_flow_run_input", given)

    async def _twice(self, name: str, given: dict[str, Any]) -> None:
        self._sent[name] += 1
        await getattr(self._client, name)(**given)
        if self._sent[name] == 1:
            await getattr(self._client, name)(**given)


async def _a_run(client: PrefectClient) -> UUID:
    answer = await client.request("POST", "/flows/", json={"name": "lost-answers"})
    body = {"flow_id": answer.json()["id"], "state": {"type": "RUNNING"}}
    return UUID((await client.request("POST", "/flow_runs/", json=body)).json()["id"])


@pytest.fixture
def client_url(prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    return prefect_url


@pytest.mark.usefixtures("client_url")
async def test_an_input_that_is_gone_already_is_dropped() -> None:
    async with get_client() as client:
        run_id = await _a_run(client)
        run = OwnRun(client, run_id)
        await run.drop("never-there")
        assert await run.put("there", 1)
        await OwnRun(Repeating(client), run_id).drop("there")
        assert await run.put("there", 2), "it is not there any more"


@pytest.mark.usefixtures("client_url")
@pytest.mark.parametrize("before", [[], ["an earlier one"]])
async def test_an_input_is_replaced_however_often_a_request_is_sent(before: list[str]) -> None:
    async with get_client() as client:
        run_id = await _a_run(client)
        for value in before:
            await OwnRun(client, run_id).put("sluice-wait-1-x", value)
        assert await OwnRun(Repeating(client), run_id).put("sluice-wait-1-x", "mine", replace=True)
        (row,) = await client.filter_flow_run_input(run_id, key_prefix="sluice", limit=5, exclude_keys=set())
        assert row.value == '"mine"'
