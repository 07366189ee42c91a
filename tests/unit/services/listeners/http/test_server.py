"""Requests that are too large, too slow or ambiguous, and many at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import httpx
import pytest

from config.api import ApiSettings
from services.store.connection import AsyncRedis
from tests.support.sources import cloudevent
from tests.unit.services.listeners.http.serving import HEAD, Site, post, serving


async def test_a_declared_body_that_is_too_large_is_refused_unread(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        writer.write(HEAD + b"content-length: 99999999\r\n\r\n")
        status = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
    assert b"413" in status


async def test_a_streamed_body_is_read_no_further_than_the_limit(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        writer.write(b"1001\r\n" + b"x" * 0x1001 + b"\r\n")
        status = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
    assert b"413" in status
    assert site.door.calls == 0


async def test_headers_that_do_not_come_to_an_end_close_the_connection(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        writer.write(b"POST /events HTTP/1.1\r\nhost: localhost\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_connection_that_drips_its_next_headers_is_closed_too(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        writer.write(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\nGET /health")
        assert b"200 OK" in await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_a_body_that_does_not_come_is_given_up(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        writer.write(HEAD + b"content-length: 100\r\n\r\n{")
        assert b"408" in await asyncio.wait_for(reader.readline(), 5)
        writer.close()


async def test_many_requests_at_once_are_each_journalled_once(redis: AsyncRedis) -> None:
    site = Site(redis, ApiSettings())  # whose time limits are for networks: client and server share a loop here
    async with serving(site) as client:
        answers: Sequence[httpx.Response] = await asyncio.gather(
            *(post(client, "/events", cloudevent(f"e{number % 50}")) for number in range(200))
        )
    assert {answer.status_code for answer in answers} == {202}
    assert sum(answer.json()["new"] for answer in answers) == 50
    assert len(await site.door.ids()) == 50
    assert json.loads(answers[0].content)["id"] == "e0"


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "with its length"])
async def test_a_sender_that_goes_on_sending_too_much_gets_its_413(redis: AsyncRedis, chunked: bool) -> None:
    """A connection that is closed with unread bytes in it is reset, and the answer is lost."""
    site = Site(redis)
    piece = b"x" * 0x10000
    async with serving(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        length = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % (200 * len(piece))
        writer.write(HEAD + b"%b\r\n\r\n" % length)
        for _ in range(200):
            writer.write(b"10000\r\n" + piece + b"\r\n" if chunked else piece)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"too-large" in answer
    assert site.door.calls == 0


async def test_a_sender_that_never_ends_does_not_keep_its_connection(
    redis: AsyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.common.lingering_close.LINGER_SECONDS", 0.2)
    site = Site(redis)
    async with serving(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        writer.write(HEAD + b"content-length: 99999999\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 413")
        writer.close()


@pytest.mark.parametrize("path", ["/events", "/nowhere"])
async def test_a_body_whose_end_is_told_in_two_ways_is_refused_and_nothing_after_it_is_read(
    redis: AsyncRedis, path: str
) -> None:
    """What follows would be a second request for us, and a part of the first for a proxy before us."""
    site = Site(redis)
    second = b"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/cloudevents+json\r\n"
    second += b"content-length: %d\r\n\r\n%b" % (len(cloudevent("smuggled")), cloudevent("smuggled"))
    body = b"0\r\n\r\n" + second
    async with serving(site):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        writer.write(
            b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"transfer-encoding: chunked\r\n\r\n%b" % (path.encode(), len(body), body)
        )
        answers = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert answers.startswith(b"HTTP/1.1 400")
    assert answers.count(b"HTTP/1.1 ") == 1
    assert site.door.calls == 0
