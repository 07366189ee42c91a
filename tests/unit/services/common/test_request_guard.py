"""Which requests a server on this machine takes, by host, origin and how their end is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.common.request_guard import RequestGuard

Headers = list[tuple[bytes, bytes]]
PROGRAM: Headers = [(b"host", b"localhost:8000")]


async def answered(
    headers: Headers, *, method: str = "POST", kind: str = "http", version: str = "1.1", **guard: Any
) -> list[dict[str, Any]]:
    """What is sent for a request with these headers; the application behind the guard answers with 200."""
    sent: list[dict[str, Any]] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"SAMEORIGIN")]})

    async def receive() -> dict[str, Any]:
        return {"type": f"{kind}.connect" if kind == "websocket" else "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "method": method, "path": "/", "headers": headers, "http_version": version}
    await RequestGuard(app, **guard)(scope, receive, send)
    return sent


async def status(headers: Headers, **more: Any) -> tuple[int, str]:
    """The status, and the code of the problem if it is one."""
    first, *rest = await answered(headers, **more)
    return first["status"], json.loads(rest[0]["body"])["code"] if rest else ""


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "[::1]", "localhost.", "127.9.9.9"]
)
async def test_a_program_on_this_machine_is_let_through(host: str) -> None:
    assert await status([(b"host", host.encode())]) == (200, "")


@pytest.mark.parametrize(
    "host", ["example.com", "10.0.0.1", "localhost.example.com", "", "127.0.0.1.nip.io", "[", "2130706433"]
)
async def test_a_name_that_only_resolves_here_is_refused(host: str) -> None:
    assert await status([(b"host", host.encode())]) == (421, "foreign-host")


async def test_a_request_names_one_host() -> None:
    assert await status([]) == (421, "foreign-host")
    assert await status([*PROGRAM, *PROGRAM]) == (421, "foreign-host")


async def test_names_of_the_settings_and_addresses_are_hosts_too() -> None:
    assert await status([(b"host", b"Sluice.example.com:443")], names=["sluice.EXAMPLE.com"]) == (200, "")
    assert await status([(b"host", b"10.0.0.1:8000")], any_address=True) == (200, "")
    assert await status([(b"host", b"example.com")], any_address=True) == (421, "foreign-host")


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:9000",
        "http://example.com",
        "null",
        "https://localhost",
        "file://",
        "http://[",
        "chrome-extension://x",
    ],
)
async def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    assert await status([*PROGRAM, (b"origin", origin.encode())]) == (403, "foreign-origin")


async def test_a_page_of_our_own_is_let_through() -> None:
    assert await status([*PROGRAM, (b"origin", b"http://localhost:8000")]) == (200, "")
    named = [(b"host", b"10.0.0.1:8000"), (b"origin", b"https://sluice.example.com")]
    assert await status(named, names=["sluice.example.com"], any_address=True) == (200, "")


async def test_one_foreign_origin_among_several_is_enough() -> None:
    own, other = (b"origin", b"http://localhost:8000"), (b"origin", b"http://example.com")
    assert await status([*PROGRAM, own, other]) == (403, "foreign-origin")


@pytest.mark.parametrize(
    ("site", "code"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
async def test_what_a_browser_says_of_the_site_counts(site: str, code: int) -> None:
    assert (await status([*PROGRAM, (b"sec-fetch-site", site.encode())]))[0] == code


@pytest.mark.parametrize(
    ("method", "mode", "dest", "code"),
    [("GET", "navigate", "document", 200), ("POST", "navigate", "document", 403), ("GET", "navigate", "iframe", 403),
     ("GET", "no-cors", "script", 403)],
)  # fmt: skip
async def test_a_link_from_elsewhere_may_be_followed_and_nothing_else(
    method: str, mode: str, dest: str, code: int
) -> None:
    said = [(b"sec-fetch-site", b"cross-site"), (b"sec-fetch-mode", mode.encode()), (b"sec-fetch-dest", dest.encode())]
    assert (await status([*PROGRAM, *said], method=method))[0] == code


@pytest.mark.parametrize(
    ("headers", "version"),
    [([(b"transfer-encoding", b"chunked"), (b"content-length", b"5")], "1.1"), ([(b"transfer-encoding", b"x")], "1.0")],
)
async def test_a_request_whose_end_is_ambiguous_is_refused(headers: Headers, version: str) -> None:
    assert await status([*PROGRAM, *headers], version=version) == (400, "ambiguous-length")


async def test_an_answer_keeps_other_pages_out_and_its_own_headers() -> None:
    (start,) = await answered(PROGRAM)
    headers = dict(start["headers"])
    assert (headers[b"x-frame-options"], headers[b"x-content-type-options"]) == (b"SAMEORIGIN", b"nosniff")


async def test_a_refusal_closes_the_connection_and_says_what_to_do() -> None:
    start, body = await answered([(b"host", b"example.com")])
    assert dict(start["headers"])[b"connection"] == b"close"
    assert "SLUICE_ALLOWED_HOSTS" in json.loads(body["body"])["what_to_do"]


async def test_a_websocket_of_another_origin_is_closed() -> None:
    (closed,) = await answered([*PROGRAM, (b"origin", b"http://example.com")], kind="websocket")
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
