"""Requests that hide others, and paths that hide where they lead: nothing gets past the token or the first answer."""

from __future__ import annotations

import asyncio

import pytest

from services.store.connection import AsyncRedis
from tests.support.smuggling import FORMS, hidden
from tests.support.sources import cloudevent
from tests.unit.services.listeners.http.serving import QUICK, Site, serving


async def answers(site: Site, raw: bytes) -> bytes:
    """All that the server says until it ends the connection, which it must."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
    writer.write(raw)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


@pytest.mark.parametrize("form", FORMS)
async def test_a_request_in_another_is_never_read(redis: AsyncRedis, form: str) -> None:
    site = Site(redis)
    body = cloudevent("smuggled").decode()
    head = "host: localhost\r\ncontent-type: application/cloudevents+json\r\n"
    second = f"POST /events HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n{body}"
    async with serving(site):
        said = await answers(site, hidden(form, first=f"POST /events HTTP/1.1\r\n{head}", second=second))
    assert said.startswith(b"HTTP/1.1 4"), said
    assert said.count(b"HTTP/1.1 ") == 1
    assert await site.door.ids() == []


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_body_that_only_chunks_tell_the_end_of_is_read_where_the_protocol_has_them(
    redis: AsyncRedis, version: str
) -> None:
    site = Site(redis)
    body = cloudevent("plain").decode()
    head = f"POST /events HTTP/{version}\r\nhost: localhost\r\nconnection: close\r\n"
    head += "content-type: application/cloudevents+json\r\ntransfer-encoding: chunked\r\n\r\n"
    async with serving(site):
        said = await answers(site, f"{head}{len(body):x}\r\n{body}\r\n0\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 202" if version == "1.1" else b"HTTP/1.1 4")


PATHS = [
    "/metrics",
    "//metrics",
    "/metrics/",
    "/./metrics",
    "/%6detrics",
    "/METRICS",
    "/health/../metrics",
    "/health/..%2fmetrics",
    "/health/%2e%2e/metrics",
    "/health/live/../../metrics",
    "/health/live%00/../metrics",
    "/health/live;/../metrics",
    "/health/live?/../metrics",
    "/events/..%2fmetrics",
    "/metrics%00",
    "/metrics%20",
    "/metrics%2f",
    "\\\\metrics",
    "http://localhost/metrics",
    "http://evil.example/metrics",
    "*",
]


@pytest.mark.parametrize("path", PATHS)
async def test_no_spelling_of_a_path_gets_past_the_token(redis: AsyncRedis, path: str) -> None:
    site = Site(redis, QUICK.model_copy(update={"token": "s3cret"}))
    async with serving(site):
        for method in ("GET", "HEAD", "POST", "OPTIONS", "get", "PROPFIND"):
            raw = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
            said = await answers(site, raw)
            live = path.startswith("/health/live?")
            assert b"200" not in said.split(b"\r\n")[0] or (live and method in {"GET", "HEAD"}), said
            assert b"sluice_" not in said
    assert site.door.calls == 0
