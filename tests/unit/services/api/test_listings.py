"""The listings of the API: pages that lose and repeat nothing, limits of tokens, replays; over a real server."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from events.signal import ResumeSignal
from services.listeners.http import callers
from services.listeners.http.bodies import CLOUDEVENT
from services.store.access.tokens import AccessTokens
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters
from tests.support.sources import cloudevent
from tests.unit.services.api.serving import NOW, api, letter
from tests.unit.services.listeners.http.serving import post


@pytest.fixture(autouse=True)
def _read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "REFRESH_SECONDS", 0.0)


async def paged(client: httpx.AsyncClient, path: str, **params: Any) -> list[list[dict[str, Any]]]:
    pages: list[list[dict[str, Any]]] = []
    cursor = None
    while True:
        assert len(pages) < 20, "the pages do not come to an end"
        answer = await client.get(path, params={**params, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        pages.append(answer.json()["items"])
        cursor = answer.json()["next"]
        if cursor is None:
            return pages


async def test_events_come_in_pages_while_others_arrive(redis: AsyncRedis, valkey_url: str) -> None:
    async with api(redis, valkey_url) as (_, client, _):
        for number in range(7):
            await post(client, "/events", cloudevent(f"e{number}", type="a" if number % 2 else "b"), CLOUDEVENT)
        first = (await client.get("/events", params={"limit": 3})).json()
        await post(client, "/events", cloudevent("late"), CLOUDEVENT)
        rest = await paged(client, "/events", limit=3, cursor=first["next"])
        typed = await paged(client, "/events", limit=1, type="b")
        one = (await client.get("/events/e1", params={"source": "tests"})).json()
        unknown = await client.get("/events/none")
    ids = [row["id"] for row in first["items"]] + [row["id"] for rows in rest for row in rows]
    assert ids == [f"e{number}" for number in (6, 5, 4, 3, 2, 1, 0)]
    assert [row["id"] for rows in typed for row in rows] == ["e6", "e4", "e2", "e0"]
    assert (one["id"], one["event"]["type"], one["outcome"]) == ("e1", "a", "waiting")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not-found")


async def test_letters_and_signals_come_in_pages(redis: AsyncRedis, valkey_url: str) -> None:
    letters = DeadLetters(redis)
    for number in range(8):
        await letters.add(letter(number))
    async with api(redis, valkey_url) as (_, client, submission):
        for number in range(5):
            await submission.submit(ResumeSignal(id=f"s{number}", key=f"k/{number % 2}", sent=NOW))
        found = await paged(client, "/dead-letters", limit=3)
        signals = await paged(client, "/signals", limit=2)
        of_key = await paged(client, "/signals", limit=1, key="k/1")
        shown = (await client.get("/signals/s3")).json()
        whole = (await client.get("/dead-letters/letter03")).json()
    assert [row["id"] for rows in found for row in rows] == [f"letter{number:02}" for number in range(7, -1, -1)]
    assert [[row["id"] for row in rows] for rows in signals] == [["s4", "s3"], ["s2", "s1"], ["s0"]]
    assert [row["id"] for rows in of_key for row in rows] == ["s3", "s1"]
    assert (shown["key"], shown["outcome"]) == ("k/1", "received")
    assert whole["content"] == {"n": 1}


async def test_a_token_reads_what_its_limits_have_and_finds_nothing_else(redis: AsyncRedis, valkey_url: str) -> None:
    letters = DeadLetters(redis)
    for number in range(4):
        await letters.add(letter(number, source="shop" if number % 2 else "bank", rule=f"r{number // 2}"))
    _, of_source = await AccessTokens(redis).create(name="a", scopes=("read",), sources=("shop",))
    _, of_rule = await AccessTokens(redis).create(name="b", scopes=("read",), rules=("r1",))
    _, of_key = await AccessTokens(redis).create(name="c", scopes=("read",), keys=("k*",))
    async with api(redis, valkey_url) as (_, client, submission):
        for source in ("shop", "bank"):
            await post(client, "/events", cloudevent(f"of-{source}", source=source), CLOUDEVENT)
        for key in ("k1", "other"):
            await submission.submit(ResumeSignal(id=f"for-{key}", key=key, sent=NOW))

        async def ids(token: str, path: str) -> list[str]:
            answer = await client.get(path, headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == 200, answer.text
            return [row["id"] for row in answer.json()["items"]]

        seen = {
            "source": (await ids(of_source, "/events"), await ids(of_source, "/dead-letters")),
            "rule": (await ids(of_rule, "/events"), await ids(of_rule, "/dead-letters")),
            "key": await ids(of_key, "/signals"),
        }
        bearer = {"authorization": f"Bearer {of_source}"}
        hidden = [
            (await client.get(path, headers=bearer)).status_code
            for path in ("/events/of-bank", "/dead-letters/letter00")
        ]
        acts = [
            (await client.post("/events/of-shop/replay", headers=bearer)).status_code,
            (await client.post("/dead-letters/letter01/replay", headers=bearer)).status_code,
            (await client.delete("/dead-letters/letter01", headers=bearer)).status_code,
        ]
    assert seen == {
        "source": (["of-shop"], ["letter03", "letter01"]),
        "rule": ([], ["letter03", "letter02"]),
        "key": ["for-k1"],
    }
    assert hidden == [404, 404]
    assert acts == [403, 403, 403]


async def test_filters_are_parameters_and_no_body(redis: AsyncRedis, valkey_url: str) -> None:
    async with api(redis, valkey_url) as (_, client, _):
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert not [path for path, calls in paths.items() if "requestBody" in calls.get("get", {})]
    names = {"/runs": {"deployment", "state", "rule", "tag"}, "/signals": {"outcome", "run", "event", "key"}}
    for path, own in names.items():
        asked = {one["name"]: one["in"] for one in paths[path]["get"]["parameters"]}
        assert set(asked) == {"since", "until", "cursor", "limit", *own}
        assert set(asked.values()) == {"query"}


@pytest.mark.parametrize(
    "path",
    [
        "/events?cursor=x",
        "/events?cursor=WyJ4Il0",
        "/events?type=[",
        "/events?limit=0",
        "/events?since=tomorrow",
        "/events?since=0001-01-01T00:00:00Z",
        "/events?until=0",
        "/signals?cursor=WyIxIl0",
        "/signals?cursor=WzFlNDAwXQ",
        "/signals?outcome=nonsense",
        "/dead-letters?cursor=WzFd",
        "/dead-letters?kind=nonsense",
        "/runs?cursor=W05hTiwxXQ",
    ],
)
async def test_bad_parameters_are_explained(redis: AsyncRedis, valkey_url: str, path: str) -> None:
    async with api(redis, valkey_url) as (_, client, _):
        answer = await client.get(path)
    assert answer.status_code in {400, 422}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = json.loads(answer.content)
    assert problem["code"] == "bad-request"
    assert problem["what_to_do"]
