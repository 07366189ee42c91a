"""Who may call the API: tokens with scopes, limits and rates, as a real server asks for them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from config.api import ApiSettings
from events.errors import NotFound, Refused, TransientError
from services.cli import app as commands
from services.common import metrics
from services.listeners.http import callers
from services.listeners.http.bodies import BATCH, CLOUDEVENT
from services.store.access.tokens import TOKENS, AccessTokens
from services.store.connection import AsyncRedis
from tests.support.sources import cloudevent
from tests.unit.services.listeners.http.serving import Site, serving

OWN = ApiSettings(token="the-installation's-own")


def bearer(token: str, kind: str = CLOUDEVENT) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "content-type": kind}


def refused(reason: str) -> float:
    registry: CollectorRegistry = metrics.REGISTRY
    return registry.get_sample_value("sluice_http_refused_total", {"reason": reason}) or 0.0


@pytest.fixture(autouse=True)
def _read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "REFRESH_SECONDS", 0.0)


@pytest.fixture
def tokens(redis: AsyncRedis) -> AccessTokens:
    return AccessTokens(redis)


async def made(tokens: AccessTokens, *scopes: str, **limits: Any) -> str:
    _, text = await tokens.create(name="shop", scopes=scopes, **limits)
    return text


async def test_a_token_may_do_what_its_scope_says_and_nothing_else(redis: AsyncRedis, tokens: AccessTokens) -> None:
    site = Site(redis, OWN, tokens=tokens)
    signal, kind = b'{"key": "k"}', "application/json"
    async with serving(site) as client:
        publisher = await made(tokens, "publish")
        _, signaller = await tokens.create(name="s", scopes=("signal",))
        _, reader = await tokens.create(name="r", scopes=("read",))
        _, admin = await tokens.create(name="a", scopes=("admin",))
        codes = {}
        for name, token in (("publish", publisher), ("signal", signaller), ("read", reader), ("admin", admin)):
            answers = (
                await client.post("/events", content=cloudevent(name), headers=bearer(token)),
                await client.post("/signals", content=signal, headers=bearer(token, kind)),
                await client.get("/metrics", headers=bearer(token)),
            )
            codes[name] = [answer.status_code for answer in answers]
        before = refused("forbidden")
        no = await client.get("/metrics", headers=bearer(publisher))
    assert codes == {
        "publish": [202, 403, 403],
        "signal": [403, 202, 403],
        "read": [403, 403, 200],
        "admin": [202, 202, 200],
    }
    assert no.json()["code"] == "forbidden"
    assert "'shop'" in no.json()["detail"]
    assert refused("forbidden") == before + 1
    assert sorted(await site.door.ids()) == ["admin", "publish"]


async def test_redis_holds_no_token_and_a_digest_is_none(redis: AsyncRedis, tokens: AccessTokens) -> None:
    site = Site(redis, OWN, tokens=tokens)
    token = await made(tokens, "publish")
    ((id_, stored),) = (await redis.hgetall(TOKENS)).items()
    assert token.rpartition("_")[2].encode() not in stored
    (kept,) = await tokens.all()
    async with serving(site) as client:
        for wrong in (kept.digest, f"sluice_{id_.decode()}_{kept.digest}", token + "x", token[:-1], "sluice__"):
            answer = await client.post("/events", content=cloudevent("a"), headers=bearer(wrong))
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert await site.door.ids() == []


async def test_a_revoked_or_expired_token_is_refused_at_once_and_uses_are_noted(
    redis: AsyncRedis, tokens: AccessTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "_USED_SECONDS", 0.0)
    site = Site(redis, OWN, tokens=tokens)
    token = await made(tokens, "publish")
    _, short = await tokens.create(name="short", scopes=("publish",), expires_seconds=0.001)
    async with serving(site) as client:
        taken = [await client.post("/events", content=cloudevent(id_), headers=bearer(token)) for id_ in "ab"]
        used = await tokens.last_used()
        late = await client.post("/events", content=cloudevent("c"), headers=bearer(short))
        gone = await tokens.revoke("shop")
        after = await client.post("/events", content=cloudevent("c"), headers=bearer(token))
    assert [answer.status_code for answer in (*taken, late, after)] == [202, 202, 401, 401]
    assert set(used) == {gone.id}
    assert await tokens.last_used() == {}
    with pytest.raises(NotFound, match="did you mean `short`"):
        await tokens.revoke("shor")


async def test_a_token_is_kept_to_its_sources_and_keys(redis: AsyncRedis, tokens: AccessTokens) -> None:
    site = Site(redis, OWN, tokens=tokens)
    token = await made(tokens, "publish", "signal", sources=("shop/*", "http:orders"), keys=("order-*",))
    plain_json = bearer(token, "application/json")
    async with serving(site) as client:
        own = await client.post("/events", content=cloudevent("a", source="shop/1"), headers=bearer(token))
        other = await client.post("/events", content=cloudevent("b", source="bank"), headers=bearer(token))
        mixed = b"[" + cloudevent("c", source="shop/1") + b"," + cloudevent("d", source="bank") + b"]"
        batch = await client.post("/events", content=mixed, headers=bearer(token, BATCH))
        plain = await client.post("/events/orders", content=b"{}", headers=plain_json)
        for_order = await client.post("/signals", content=b'{"key": "order-1"}', headers=plain_json)
        for_pay = await client.post("/signals", content=b'{"key": "pay-1"}', headers=plain_json)
        run = b'{"run_id": "0d5e54b0-65ab-4a33-9ff0-4f5df4fd1b8e"}'
        by_run = await client.post("/signals", content=run, headers=plain_json)
    answers = (own, other, batch, plain, for_order, for_pay, by_run)
    assert [answer.status_code for answer in answers] == [202, 403, 403, 202, 202, 403, 403]
    assert [signal.key for signal in site.signals] == ["order-1"]
    assert {event["source"] for event in await site.door.events()} == {"shop/1", "http:orders"}


async def test_a_token_that_sends_too_much_is_told_when_to_go_on(redis: AsyncRedis, tokens: AccessTokens) -> None:
    site = Site(redis, OWN, tokens=tokens)
    token = await made(tokens, "publish", per_second=2)
    async with serving(site) as client:
        batch = b"[" + b",".join(cloudevent(f"e{number}") for number in range(60)) + b"]"
        first = await client.post("/events", content=batch, headers=bearer(token, BATCH))
        second = await client.post("/events", content=cloudevent("a"), headers=bearer(token))
        other = await client.post("/events", content=cloudevent("b"), headers=bearer(OWN.token or ""))
    assert (first.status_code, second.status_code, other.status_code) == (202, 429, 202)
    assert 20 <= int(second.headers["retry-after"]) <= 30
    assert second.json()["code"] == "too-many"


async def test_without_redis_the_tokens_that_were_read_last_count(redis: AsyncRedis, tokens: AccessTokens) -> None:
    class Failing(AccessTokens):
        fails = False

        async def all(self) -> Any:
            if self.fails:
                raise TransientError("Redis is out of reach")
            return await super().all()

    store = Failing(redis)
    site = Site(redis, OWN, tokens=store)
    token = await made(tokens, "read")
    async with serving(site) as client:
        store.fails = True
        unknown = await client.get("/metrics", headers=bearer(token))
        health = await client.get("/health/ready", headers=bearer(token))
        store.fails = False
        known = await client.get("/metrics", headers=bearer(token))
        store.fails = True
        later = await client.get("/metrics", headers=bearer(token))
    assert [answer.status_code for answer in (unknown, health, known, later)] == [503, 200, 200, 200]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scopes": ()}, "no scope"),
        ({"scopes": ("admin",), "sources": ("a",)}, "no limits"),
        ({"scopes": ("signal",), "sources": ("a",)}, "is for the scopes publish and read"),
        ({"scopes": ("read",), "sources": ("[",)}, "never closed"),
        ({"scopes": ("read",), "name": "a\nb"}, "pattern"),
        ({"scopes": ("read",), "per_second": 0}, "greater than 0"),
    ],
)
async def test_a_token_that_makes_no_sense_is_not_made(tokens: AccessTokens, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        await tokens.create(**{"name": "n", **wrong})
    assert await tokens.all() == []


async def test_two_tokens_have_two_names(tokens: AccessTokens) -> None:
    await made(tokens, "read")
    with pytest.raises(Refused, match="revoke it"):
        await made(tokens, "read")


async def test_the_commands_make_list_and_revoke_tokens(
    redis: AsyncRedis, tokens: AccessTokens, valkey_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLUICE_REDIS_URL", valkey_url)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))

    async def call(*words: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, commands, ["token", *words])

    made = await call(
        "create", "shop", "--scope", "publish", "--source", "shop/*", "--per-second", "5", "--expires", "90d"
    )
    assert made.exit_code == 0, made.output
    text = made.stdout.strip()
    (token,) = await tokens.all()
    assert token.is_(text)
    assert text not in (await call("list", "--json")).stdout
    (row,) = json.loads((await call("list", "--json")).stdout)
    assert (row["name"], row["scopes"], row["sources"], row["last_used"]) == ("shop", ["publish"], ["shop/*"], None)
    assert "source shop/*; 5/s" in (await call("list")).stdout
    wrong = await call("create", "x", "--scope", "admin", "--source", "a")
    assert (wrong.exit_code, "no limits" in wrong.output) == (1, True)
    assert (await call("create", "x", "--scope", "read", "--expires", "soon")).exit_code == 2
    assert (await call("revoke", "shop")).exit_code == 0
    assert (await call("revoke", "shop")).exit_code == 1
    assert await tokens.all() == []


def test_a_flood_of_refused_calls_is_a_line_a_second() -> None:
    told = callers._Refusals()
    assert told.to_tell() == 0
    assert [told.to_tell() for _ in range(5)] == [None] * 5
    told._at -= 1
    assert told.to_tell() == 5
