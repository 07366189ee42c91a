"""Who may call: tokens, own user, other users, pages and names of elsewhere."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import httpx
import pytest

from services.store.connection import AsyncRedis
from tests.support.sources import cloudevent
from tests.unit.services.listeners.http.serving import HEAD, QUICK, Site, post, serving


async def test_a_token_is_asked_of_everything_but_health(redis: AsyncRedis) -> None:
    site = Site(redis, QUICK.model_copy(update={"token": "s3cret"}))
    async with serving(site) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic s3cret"}):
            answer = await post(client, "/events", cloudevent("a"), **headers)
            assert answer.status_code == 401
            assert "www-authenticate" in answer.headers
        assert (await client.get("/metrics")).status_code == 401
        assert (await post(client, "/signals", b'{"key": "k"}', "application/json")).status_code == 401
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200
        taken = await post(client, "/events", cloudevent("a"), authorization="Bearer s3cret")
    assert taken.status_code == 202
    assert await site.door.ids() == ["a"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_what_a_browser_sends_anywhere_without_asking_is_refused(redis: AsyncRedis, kind: str) -> None:
    site = Site(redis)
    async with serving(site) as client:
        answer = await post(client, "/events/orders", b'{"n": 1}', kind)
    assert answer.status_code == 415
    assert site.door.calls == 0


async def test_health_without_the_token_names_no_folders(redis: AsyncRedis) -> None:
    async with serving(Site(redis, QUICK.model_copy(update={"token": "secret"}))) as client:
        assert set((await client.get("/health/ready")).json()) == {"ready", "level", "problems", "roles"}
        known = await client.get("/health/ready", headers={"authorization": "Bearer secret"})
        assert "degraded" in known.json()


async def test_no_answer_repeats_the_host_that_a_request_claims(redis: AsyncRedis) -> None:
    site = Site(redis, allowed_hosts=["sluice.example"])
    async with serving(site) as client:
        for path in ("/events/", "/health/live/", "/metrics/", "//sluice.example/"):
            answer = await client.get(path, headers={"host": "sluice.example"})
            assert answer.status_code == 404
            assert "location" not in answer.headers
            assert "sluice.example:" not in answer.text


FOREIGN: list[tuple[dict[str, str], int, str]] = [
    ({"host": "evil.example"}, 421, "foreign-host"),
    ({"host": "127.0.0.1.evil.example"}, 421, "foreign-host"),
    ({"host": "192.0.2.1"}, 421, "foreign-host"),
    ({"host": "localhost.evil"}, 421, "foreign-host"),
    ({"origin": "https://evil.example"}, 403, "foreign-origin"),
    ({"origin": "http://127.0.0.1:1"}, 403, "foreign-origin"),
    ({"origin": "null"}, 403, "foreign-origin"),
    ({"origin": "http://[::"}, 403, "foreign-origin"),
    ({"sec-fetch-site": "cross-site"}, 403, "foreign-origin"),
    ({"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403, "foreign-origin"),
]


@pytest.mark.parametrize(("headers", "status", "code"), FOREIGN)
async def test_requests_for_other_names_and_of_other_pages_are_refused_in_words(
    redis: AsyncRedis, headers: dict[str, str], status: int, code: str
) -> None:
    site = Site(redis)
    async with serving(site) as client:
        posted = await post(client, "/events", cloudevent("a"), **headers)
        read = await client.get("/health/ready", headers=headers)
    for answer in (posted, read):
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert "SLUICE_ALLOWED_HOSTS" in answer.json()["what_to_do"]
    assert site.door.calls == 0


async def test_own_names_own_pages_and_named_ones_are_served(redis: AsyncRedis) -> None:
    site = Site(redis, allowed_hosts=["sluice.example"])
    async with serving(site) as client:
        port = site.listener.port
        for headers in (
            {"host": "localhost"},
            {"host": f"LOCALHOST:{port}"},
            {"host": f"[::1]:{port}"},
            {"host": "127.0.0.2"},
            {"host": "sluice.example"},
            {"host": f"127.0.0.1:{port}", "origin": f"http://127.0.0.1:{port}", "sec-fetch-site": "same-origin"},
            {"origin": "https://sluice.example"},
            {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        ):
            assert (await client.get("/health/live", headers=headers)).status_code == 200, headers


async def test_beyond_loopback_every_address_is_served_and_no_other_name(redis: AsyncRedis) -> None:
    """An address cannot be made to point elsewhere; a name can."""
    site = Site(redis, QUICK.model_copy(update={"host": "0.0.0.0"}))
    async with serving(site) as client:
        assert (await client.get("/health/live", headers={"host": "192.0.2.1:4280"})).status_code == 200
        assert (await client.get("/health/live", headers={"host": "evil.example"})).status_code == 421


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whose connection it is")
async def test_the_own_user_needs_no_token_where_that_is_trusted(redis: AsyncRedis) -> None:
    site = Site(redis, QUICK.model_copy(update={"token": "s3cret"}), trusts_own_user=True)
    async with serving(site) as client:
        assert (await post(client, "/events", cloudevent("a"))).status_code == 202
        wrong = await post(client, "/events", cloudevent("b"), authorization="Bearer wrong")
        assert wrong.status_code == 401


OTHER_USER = """
import encodings.idna, os, sys, urllib.error, urllib.request
os.setgid(65534); os.setuid(65534)
request = urllib.request.Request(sys.argv[1] + "/events", sys.argv[2].encode(), {"Content-Type": "application/json"})
try:
    print(urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_another_user_needs_the_token_all_the_same(redis: AsyncRedis) -> None:
    site = Site(redis, QUICK.model_copy(update={"token": "s3cret"}), trusts_own_user=True)
    async with serving(site):
        url = f"http://127.0.0.1:{site.listener.port}"
        command = [sys.executable, "-c", OTHER_USER, url, cloudevent("a").decode()]
        other = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == "401"
    assert site.door.calls == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_a_connection_whose_process_is_gone_is_nobodys(redis: AsyncRedis) -> None:
    """The kernel says root of it, as whom this test runs."""
    site = Site(redis, QUICK.model_copy(update={"token": "s3cret"}), trusts_own_user=True)
    async with serving(site):
        _, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        body = cloudevent("a")
        writer.write(HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()
        await writer.wait_closed()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.listener.port}") as client:
            assert (await client.get("/metrics")).status_code == 200  # the first one has been read by now
    assert site.door.calls == 0
