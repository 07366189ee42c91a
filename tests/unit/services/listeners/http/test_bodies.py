"""Bodies of requests: which types are taken, and how much is read of one and of all together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request

from config.api import ApiSettings
from services.listeners.http.bodies import BATCH, CLOUDEVENT, content_type, read_body
from services.listeners.http.problem import ProblemDetails

MIB = 1024 * 1024
SETTINGS = ApiSettings(body_timeout_seconds=0.05, max_bodies_bytes=MIB)


def request(*chunks: bytes | None, **headers: str) -> Request:
    """A request whose body comes in these chunks; None: nothing more comes."""
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        chunk = left.pop(0)
        if chunk is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/events", "headers": pairs}, receive)


def several(*values: str) -> Request:
    pairs = [(b"content-type", value.encode()) for value in values]
    return Request({"type": "http", "method": "POST", "path": "/events", "headers": pairs})


async def test_a_body_is_all_of_its_chunks() -> None:
    assert await read_body(request(b"ab", b"", b"cd"), 4, SETTINGS) == b"abcd"


@pytest.mark.parametrize(
    "sent", [request(b"", content_length="11"), request(b"x" * 11), request(b"x" * 6, b"x" * 6, content_length="nine")]
)
async def test_a_body_over_the_limit_is_refused(sent: Request) -> None:
    with pytest.raises(ProblemDetails) as refused:
        await read_body(sent, 10, SETTINGS)
    assert (refused.value.status, refused.value.code) == (413, "too-large")


async def test_a_body_that_does_not_come_is_given_up() -> None:
    with pytest.raises(ProblemDetails) as refused:
        await read_body(request(b"x", None), 10, SETTINGS)
    assert (refused.value.status, refused.value.code) == (408, "too-slow")


async def test_all_bodies_together_have_a_limit_and_give_their_place_back() -> None:
    whole = b"x" * (MIB - 5)
    first = asyncio.create_task(read_body(request(whole, None), MIB, SETTINGS))
    await asyncio.sleep(0)
    with pytest.raises(ProblemDetails) as refused:
        await read_body(request(whole), MIB, SETTINGS)
    assert (refused.value.status, refused.value.code, refused.value.retry_after_seconds) == (503, "too-busy", 2)
    with pytest.raises(ProblemDetails):
        await first
    assert await read_body(request(whole), MIB, SETTINGS) == whole


async def test_a_sender_that_hangs_up_gives_its_place_back() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * (MIB - 5)
        raise ConnectionResetError

    gone = request()
    gone.stream = chunks
    for _ in range(3):
        with pytest.raises(ConnectionResetError):
            await read_body(gone, MIB, SETTINGS)
    assert await read_body(request(b"x" * MIB), MIB, SETTINGS)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("application/json", "application/json"),
        ("Application/JSON; charset=UTF-8", "application/json"),
        (f"{CLOUDEVENT};charset=utf8", CLOUDEVENT),
        (BATCH, BATCH),
        ("application/vnd.acme+json", "application/vnd.acme+json"),
        ("application/json;charset=us-ascii", "application/json"),
    ],
)
def test_json_in_utf_8_is_taken_under_any_of_its_names(given: str, kind: str) -> None:
    assert content_type(several(given)) == kind


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ([], "not-json"),
        ([""], "not-json"),
        (["text/plain"], "not-json"),
        (["application/x-www-form-urlencoded"], "not-json"),
        (["text/json+json"], "not-json"),
        (["application/json", "application/json"], "not-json"),
        (["application/json; charset=latin1"], "not-utf-8"),
        (["application/json; charset="], "not-utf-8"),
    ],
)
def test_what_a_web_page_can_send_unasked_is_refused(given: list[str], code: str) -> None:
    with pytest.raises(ProblemDetails) as refused:
        content_type(several(*given))
    assert (refused.value.status, refused.value.code) == (415, code)


def test_an_event_in_headers_needs_no_type() -> None:
    assert content_type(request(ce_specversion="1.0")) == ""
    with pytest.raises(ProblemDetails):
        content_type(request(ce_specversion="1.0", content_type="text/plain"))


@pytest.mark.parametrize(("encoding", "refused"), [("identity", False), ("Identity", False), ("gzip", True)])
def test_a_compressed_body_is_refused(encoding: str, refused: bool) -> None:
    given = request(content_type="application/json", content_encoding=encoding)
    if not refused:
        assert content_type(given) == "application/json"
        return
    with pytest.raises(ProblemDetails, match="compressed"):
        content_type(given)
