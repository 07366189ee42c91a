"""Webhooks of other systems: only a delivery that proves whom it is from becomes an event, and each does once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from config.api import ApiSettings
from config.project import load_project
from config.sources import HookSource
from events.errors import ConfigError
from services.listeners.http.bodies import CLOUDEVENT
from services.listeners.http.hooks.receiver import hooks_with_secrets
from services.store.access.hook_deliveries import HookDeliveries
from services.store.connection import AsyncRedis
from tests.support.sources import cloudevent
from tests.unit.services.listeners.http.serving import Site, post, serving

KEY = b"k" * 24
SECRETS = {
    "STANDARD": "whsec_" + base64.b64encode(KEY).decode(),
    "GITHUB_NEW": "new",
    "GITHUB": "It's a Secret to Everybody",
    "SHARED": "s3cret",
}
SOURCES = {
    "billing": HookSource(verify="standard-webhooks", secret_env="STANDARD", type="billing"),
    "github": HookSource(verify="github", secret_env=("GITHUB_NEW", "GITHUB"), type="github"),
    "shop": HookSource(verify="shared-secret", secret_env="SHARED", type="shop.order", id_header="X-Order"),
}
JSON = "application/json"


def site(redis: AsyncRedis) -> Site:
    return Site(
        redis,
        ApiSettings(token="of the installation"),
        hooks=hooks_with_secrets(SOURCES, SECRETS),
        deliveries=HookDeliveries(redis),
    )


def standard(body: bytes, id_: str = "msg_1", *, at: float | None = None) -> dict[str, str]:
    sent = str(int(time.time() if at is None else at))
    signed = hmac.new(KEY, b"%s.%s.%s" % (id_.encode(), sent.encode(), body), hashlib.sha256).digest()
    signature = f"v1a,nonsense v1,{base64.b64encode(signed).decode()}"
    return {"webhook-id": id_, "webhook-timestamp": sent, "webhook-signature": signature}


def github(body: bytes, delivery: str = "d-1") -> dict[str, str]:
    signature = hmac.new(SECRETS["GITHUB"].encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={signature}", "X-GitHub-Delivery": delivery, "X-GitHub-Event": "push"}


async def deliver(client: httpx.AsyncClient, name: str, body: bytes, **headers: str) -> Any:
    return await post(client, f"/hooks/{name}", body, JSON, **headers)


def test_the_published_examples_of_github_and_standard_webhooks_verify() -> None:
    """Values of the two specifications."""
    body = b"Hello, World!"
    found = hmac.new(SECRETS["GITHUB"].encode(), body, hashlib.sha256).hexdigest()
    assert found == "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = b'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}'
    expected = "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode() == expected


async def test_each_way_of_signing_makes_an_event_with_the_deliverys_id(redis: AsyncRedis) -> None:
    running, body = site(redis), b'{"n":  1}'
    async with serving(running) as client:
        answers = [
            await deliver(client, "billing", body, **standard(body)),
            await deliver(client, "github", body, **github(body)),
            await deliver(client, "shop", body, **{"X-Webhook-Secret": "s3cret", "X-Order": "17"}),
            await deliver(client, "billing", body, **standard(body)),
            await deliver(client, "github", body, **github(body)),
        ]
    assert [answer.status_code for answer in answers] == [202] * 5
    assert [answer.json()["new"] for answer in answers] == [True, True, True, False, False]
    found = {(event["source"], event["id"], event["type"]) for event in await running.door.events()}
    assert found == {
        ("hooks/billing", "msg_1", "billing"),
        ("hooks/github", "d-1", "github.push"),
        ("hooks/shop", "17", "shop.order"),
    }


async def test_what_proves_nothing_is_refused_and_kept_nowhere(redis: AsyncRedis) -> None:
    running, body = site(redis), b'{"n": 1}'
    now = time.time()
    without_id = {**standard(body), "webhook-id": "msg_2"}
    tries: list[tuple[str, bytes, dict[str, str]]] = [
        ("billing", body, {}),
        ("billing", b'{"n": 2}', standard(body)),
        ("billing", b'{"n":1}', standard(body)),  # the same JSON, and other bytes
        ("billing", body, standard(body, at=now - 400)),
        ("billing", body, standard(body, at=now + 400)),
        ("billing", body, without_id),
        ("billing", body, {**standard(body), "webhook-timestamp": "tomorrow"}),
        ("github", b'{"n": 2}', github(body)),
        ("github", body, {**github(body), "X-Hub-Signature-256": github(body)["X-Hub-Signature-256"][7:]}),
        ("shop", body, {"X-Webhook-Secret": "S3cret", "X-Order": "1"}),
        ("shop", body, {"authorization": "Bearer of the installation", "X-Order": "1"}),
        ("shop", body, {"X-Webhook-Secret": "other", "X-Order": "1"}),
    ]
    async with serving(running) as client:
        for name, sent, headers in tries:
            answer = await deliver(client, name, sent, **headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "bad-signature"), (name, headers)
            assert all(secret not in answer.text for secret in SECRETS.values())
        unknown = await deliver(client, "nobody", body)
    assert unknown.status_code == 404
    assert running.door.calls == 0
    assert running.letters.by_id == {}


async def test_a_copied_delivery_starts_nothing_under_another_id(redis: AsyncRedis) -> None:
    running, body = site(redis), b'{"n": 1}'
    async with serving(running) as client:
        first = await deliver(client, "github", body, **github(body))
        copied = await deliver(client, "github", body, **github(body, "d-2"))
        resigned = await deliver(client, "billing", body, **{**standard(body), "webhook-id": "msg_9"})
    assert (first.status_code, copied.status_code, resigned.status_code) == (202, 409, 401)
    assert copied.json()["code"] == "replayed"
    assert await running.door.ids() == ["d-1"]


async def test_a_signed_delivery_that_is_no_event_is_kept_whole(redis: AsyncRedis) -> None:
    running = site(redis)
    async with serving(running) as client:
        broken = await deliver(client, "billing", b"{", **standard(b"{", "msg_1"))
        templated = b'{"__prefect_kind": "jinja"}'
        poisoned = await deliver(client, "billing", templated, **standard(templated, "msg_2"))
        unnamed = await deliver(client, "shop", b"{}", **{"X-Webhook-Secret": "s3cret"})
        form = await post(client, "/hooks/github", b"a=b", "application/x-www-form-urlencoded", **github(b"a=b"))
        large = await deliver(client, "github", b"x" * 5000)
    assert [one.json()["code"] for one in (broken, poisoned)] == ["not-json", "hydration"]
    assert running.letters.raws == [b"{", templated]
    assert [one.status_code for one in (unnamed, form, large)] == [400, 415, 413]


async def test_nobody_else_can_be_a_webhook(redis: AsyncRedis) -> None:
    running = Site(redis)
    async with serving(running) as client:
        answer = await post(client, "/events", cloudevent("a", source="hooks/github"), CLOUDEVENT)
    assert (answer.status_code, answer.json()["code"]) == (400, "reserved")


def test_a_hook_without_its_secret_is_a_configuration_error_that_names_the_variable() -> None:
    with pytest.raises(ConfigError) as found:
        hooks_with_secrets(SOURCES, {**SECRETS, "GITHUB": "", "STANDARD": "whsec_!"})
    (first, second) = found.value.problems
    assert "sources.http.hooks.billing" in first
    assert "STANDARD" in first
    assert "GITHUB" in second


def test_hooks_stand_beside_the_named_sources_of_the_project_file(tmp_path: Path) -> None:
    file = tmp_path / "sluice.yaml"
    text = "sources:\n  http:\n    orders: {type: order.message}\n    hooks:\n      shop: %s\n"
    file.write_text(text % "{verify: shared-secret, secret_env: SHOP, type: shop}")
    sources = load_project(file, home=tmp_path / ".sluice").sources.http
    assert (list(sources.named), list(sources.hooks)) == (["orders"], ["shop"])
    for wrong, said in (
        ("{verify: md5, secret_env: SHOP, type: shop}", "sluice.yaml:5: sources.http.hooks.shop.verify"),
        ("{verify: github, secret_envs: SHOP, type: shop}", "did you mean `secret_env`"),
        ("{verify: github, secret_env: SHOP, type: sluice.shop}", "Sluice's own"),
        ("{verify: standard-webhooks, secret_env: SHOP, type: shop, id_header: X-Id}", "leave it out"),
    ):
        file.write_text(text % wrong)
        with pytest.raises(ConfigError) as found:
            load_project(file, home=tmp_path / ".sluice")
        assert any(said in problem for problem in found.value.problems), found.value.problems
    file.write_text("sources: {http: {hooks: {type: order.message}}}")
    with pytest.raises(ConfigError, match="give the source POST /events/hooks another name"):
        load_project(file, home=tmp_path / ".sluice")
    file.write_text("sources: {http: {orders: {typ: order.message}}}")
    with pytest.raises(ConfigError, match="did you mean `type`"):
        load_project(file, home=tmp_path / ".sluice")
