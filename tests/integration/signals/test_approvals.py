"""Approval links: one person answers one wait, once, on a page that needs no script; in a real browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
import pytest_asyncio
from playwright.sync_api import Page, expect
from typer.testing import CliRunner

from config.api import ApiSettings
from config.settings import Settings
from services.api.build import build_routers
from services.cli import app as commands
from services.signals.approval_link import ApprovalLink
from services.store.access.link_secret import link_secret
from services.store.access.tokens import AccessTokens
from services.store.connection import AsyncRedis
from tests.integration.signals.conftest import Desk, new_key
from tests.support.browser import chromium
from tests.unit.services.listeners.http.serving import Site, serving

SCHEMA = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean", "title": "Approved", "default": True},
        "amount": {"type": "integer", "title": "Amount", "maximum": 1000, "default": 5},
        "level": {"$ref": "#/$defs/Level"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "Note", "default": None},
    },
    "required": ["approved", "level"],
    "$defs": {"Level": {"enum": ["low", "high"], "type": "string", "title": "Level"}},
    "additionalProperties": False,
}
FORM = {"content-type": "application/x-www-form-urlencoded"}
GOOD = {"approved": "true", "amount": "7", "level": '"high"'}


@asynccontextmanager
async def api(desk: Desk, redis: AsyncRedis) -> AsyncIterator[httpx.AsyncClient]:
    async def prefect() -> Any:
        return desk.api

    routers = build_routers(redis, Settings(), desk.submission, prefect, None)
    site = Site(redis, ApiSettings(token="own"), tokens=AccessTokens(redis), routers=routers)
    async with serving(site) as client:
        client.headers["authorization"] = "Bearer own"
        yield client


@pytest_asyncio.fixture
async def client(resumer: Desk, redis: AsyncRedis) -> AsyncIterator[httpx.AsyncClient]:
    async with api(resumer, redis) as found:
        yield found


async def made(client: httpx.AsyncClient, key: str, person: str = "ada", **more: Any) -> str:
    answer = await client.post("/signals/links", json={"key": key, "for": person, **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["url"])


async def answer(client: httpx.AsyncClient, url: str, **fields: str) -> httpx.Response:
    return await client.post(url, content=urlencode(fields), headers=FORM)


async def in_browser(work: Callable[[Page], None]) -> None:
    def run() -> None:
        with chromium() as browser:
            context = browser.new_context(java_script_enabled=False)
            context.set_default_timeout(60_000)
            work(context.new_page())

    await asyncio.to_thread(run)


@pytest.mark.slow
async def test_a_person_answers_by_the_link_in_a_browser_without_scripts(
    resumer: Desk, client: httpx.AsyncClient
) -> None:
    key = new_key()
    run_id = await resumer.park(key, schema=SCHEMA)
    url = await made(client, key)
    asked: set[str] = set()

    def work(page: Page) -> None:
        page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
        page.goto(url)
        expect(page.get_by_text("You answer as ada")).to_be_visible()
        expect(page.get_by_text("Waits")).to_be_visible()
        for decides in page.get_by_role("radio").all():
            expect(decides).not_to_be_checked()
        page.get_by_role("button", name="Send the answer").click()  # the browser itself asks for what is missing
        assert page.get_by_text("Thank you").count() == 0
        page.get_by_label("Yes").check()
        page.get_by_label("high").check()
        page.get_by_label("Amount").fill("2000")
        page.get_by_label("Note").fill("<b>bold</b>")
        page.get_by_role("button", name="Send the answer").click()
        expect(page.get_by_text("2000 is greater than the maximum of 1000")).to_be_visible()
        expect(page.get_by_label("Yes")).to_be_checked()
        page.get_by_label("Amount").fill("20")
        page.get_by_role("button", name="Send the answer").click()
        expect(page.get_by_text("The answer of ada was taken")).to_be_visible()
        assert page.locator("b", has_text="bold").count() == 0
        page.goto(url)
        expect(page.get_by_text("The answer of ada was taken")).to_be_visible()
        assert page.get_by_role("button").count() == 0

    await in_browser(work)
    value = await resumer.answer(run_id)
    assert value == {"approved": True, "amount": 20, "level": "high", "note": "<b>bold</b>"}
    (record,) = await resumer.store.of_run(run_id)
    assert (record.status, record.signal.by, record.origin) == ("applied", "ada", "approval link")
    assert asked == {urlsplit(url).netloc}


@pytest.mark.slow
async def test_a_person_rejects_by_the_link_and_must_say_why(resumer: Desk, client: httpx.AsyncClient) -> None:
    key = new_key()
    run_id = await resumer.park(key)
    url = await made(client, key)

    def work(page: Page) -> None:
        page.goto(url)
        page.get_by_text("Reject instead").click()
        page.get_by_label("Why").fill("too dear")
        page.get_by_role("button", name="Reject").click()
        expect(page.get_by_text("The rejection of ada was taken")).to_be_visible()

    await in_browser(work)
    (record,) = await resumer.store.of_run(run_id)
    assert (record.signal.action, record.signal.reason, record.signal.by) == ("reject", "too dear", "ada")


async def test_looking_at_a_link_answers_nothing_and_a_second_answer_changes_nothing(
    resumer: Desk, client: httpx.AsyncClient
) -> None:
    key = new_key()
    run_id = await resumer.park(key, schema=SCHEMA)
    first, other = await made(client, key), await made(client, key, "bob")
    bare = httpx.AsyncClient(headers=FORM)  # who opens a link has no token
    for method in ("GET", "HEAD", "GET", "OPTIONS"):
        await bare.request(method, f"{first}?approved=true&level=%22high%22")
    assert await resumer.store.of_run(run_id) == []
    foreign = await bare.post(first, content=urlencode(GOOD), headers={"origin": "https://evil.example"})
    wrong_type = await bare.post(first, content=b'{"approved": true}', headers={"content-type": "application/json"})
    taken = await bare.post(first, content=urlencode(GOOD))
    again = await bare.post(first, content=urlencode({**GOOD, "amount": "9"}))
    late = await bare.post(other, content=urlencode({**GOOD, "amount": "8"}))
    await bare.aclose()
    assert [one.status_code for one in (foreign, wrong_type, taken, again, late)] == [403, 415, 200, 200, 410]
    assert "The answer of <b>ada</b> was taken" in again.text
    assert "ada answered last" in late.text
    assert await resumer.answer(run_id) == {"approved": True, "amount": 7, "level": "high"}
    assert len(await resumer.store.of_run(run_id)) == 1
    for page in (taken, late):
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "same-origin"


async def test_of_two_answers_at_once_one_counts(resumer: Desk, client: httpx.AsyncClient) -> None:
    key = new_key()
    run_id = await resumer.park(key, schema=SCHEMA)
    url = await made(client, key)
    answers = await asyncio.gather(*(answer(client, url, **{**GOOD, "amount": str(number)}) for number in range(6)))
    assert {one.status_code for one in answers} == {200}
    assert [record.status for record in await resumer.store.of_run(run_id)] == ["applied"]


async def test_a_link_is_for_its_wait_alone(resumer: Desk, client: httpx.AsyncClient, redis: AsyncRedis) -> None:
    key = new_key()
    run_id = await resumer.park(key, name="one")
    url = await made(client, key)
    await resumer.ask(key=key, input={"n": 1})
    await resumer.park(key, name="two", run_id=run_id)
    over = await answer(client, url)
    link = ApprovalLink.parse(url.rpartition("/")[2], await link_secret(redis))
    # As one that was sent just before the first wait ended would come.
    record = await resumer.ask(key=key, input={"n": 2}, wait=link.wait, by="ada")
    assert over.status_code == 410
    assert record.status == "buffered"
    assert await resumer.answer(run_id, "two") is None
    assert (await resumer.ask(key=key, input={"n": 3})).status == "applied"


async def test_links_that_are_not_good(resumer: Desk, client: httpx.AsyncClient, redis: AsyncRedis) -> None:
    key = new_key()
    run_id = await resumer.park(key, schema=SCHEMA)
    url = await made(client, key)
    secret = await link_secret(redis)
    base, _, text = url.rpartition("/")
    link = ApprovalLink.parse(text, secret)
    old = ApprovalLink(link.id, run_id, link.wait, key, "ada", datetime.fromtimestamp(1, UTC)).text(secret)
    forged = ApprovalLink(link.id, run_id, link.wait, key, "eve", link.expires).text(b"another")
    said, _, signature = text.partition(".")
    for wrong, status in ((old, 410), (forged, 404), (said, 404), (f"{said}A.{signature}", 404), (text[:-1], 404)):
        for reply in (await client.get(f"{base}/{wrong}"), await answer(client, f"{base}/{wrong}", **GOOD)):
            assert reply.status_code == status, wrong
            assert "text/html" in reply.headers["content-type"]
    assert await resumer.store.of_run(run_id) == []


async def test_who_may_make_links_and_for_what(resumer: Desk, client: httpx.AsyncClient, redis: AsyncRedis) -> None:
    key = new_key()
    one = await resumer.park(key)
    await resumer.park(key)
    _, reader = await AccessTokens(redis).create(name="r", scopes=("read",))
    _, limited = await AccessTokens(redis).create(name="s", scopes=("signal",), keys=("order-*",))
    body = {"key": key, "for": "ada"}

    async def status(token: str = "own", **more: Any) -> int:
        headers = {"authorization": f"Bearer {token}"}
        return (await client.post("/signals/links", json={**body, **more}, headers=headers)).status_code

    assert [await status(reader), await status(limited), await status()] == [403, 403, 409]
    assert [await status(run_id=one), await status(key="nobody"), await status(expires_seconds=1e9)] == [200, 404, 422]


async def test_the_command_makes_a_link_and_runs_are_listed_over_http(  # noqa: PLR0917 - fixtures
    resumer: Desk,
    client: httpx.AsyncClient,
    redis: AsyncRedis,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    key, tag = new_key(), new_key()
    runs = [await resumer.park(key if number == 0 else new_key(), tags=[tag]) for number in range(5)]
    monkeypatch.setenv("SLUICE_REDIS_URL", valkey_url)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.setenv("SLUICE_API__PUBLIC_URL", str(client.base_url))
    called = await asyncio.to_thread(
        CliRunner().invoke, commands, ["signals", "link", key, "--for", "ada", "--expires", "2h"]
    )
    assert called.exit_code == 0, called.output
    url = next(line for line in called.stdout.splitlines() if re.match("https?://", line))
    assert (await answer(client, url, n="1")).status_code == 200
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get("/runs", params={"tag": tag, "limit": 2, **cursor})).json()
        assert len(page["items"]) <= 2
        found += [row["id"] for row in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert found == runs[::-1]
    assert (await client.get(f"/runs/{runs[1]}")).json()["state_type"] == "PAUSED"
    assert (await client.get("/runs", params={"state": "nonsense"})).status_code == 400
