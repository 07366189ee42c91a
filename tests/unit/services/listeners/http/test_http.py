"""The HTTP listener as a real server on loopback, with the real journal behind it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from config.api import ApiSettings
from config.sources import HttpSource
from events.errors import Backpressure, ConfigError, TransientError
from events.signal import ResumeSignal
from events.untrusted_json import Limits
from services.common.reasons import reason
from services.listeners.http.bodies import BATCH, CLOUDEVENT
from services.listeners.http.listener import HttpListener
from services.operations.readiness import Readiness, RoleReadiness
from services.store.connection import AsyncRedis
from tests.support.sources import Door, Letters, cloudevent, running
from tests.support.waiting import eventually

LIMITS = Limits(max_bytes=4096, max_depth=16)
QUICK = ApiSettings(
    header_timeout_seconds=0.3, body_timeout_seconds=0.3, journal_timeout_seconds=0.3, max_batch_bytes=8192
)


HEAD = b"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


class Site:
    """A running HTTP listener and what it led to."""

    def __init__(self, redis: AsyncRedis, settings: ApiSettings = QUICK, **more: Any) -> None:
        self.door = Door(redis)
        self.letters = Letters()
        self.signals: list[ResumeSignal] = []
        self.is_ready = True
        self.listener = HttpListener(
            settings=settings,
            port=0,
            limits=LIMITS,
            sources={"orders": HttpSource(type="order.message")},
            emit_for=lambda listener: self.door.emit,
            submit=self._submit,
            dead=self.letters,
            readiness=self._readiness,
            scrape=self._scrape,
            **more,
        )

    async def _scrape(self, readiness: Readiness) -> bytes:
        return f"sluice_ready {readiness.ready:d}\n".encode()

    async def _submit(self, signal: ResumeSignal) -> None:
        self.signals.append(signal)

    async def _readiness(self) -> Readiness:
        slow = reason("retrying", "files:inbox: /data/inbox is slow", role="listeners")
        reasons = (slow,) if self.is_ready else (reason("rule-held", "because"), slow)
        return Readiness(reasons, {"listeners": RoleReadiness(True, None, (slow,), (), ())})


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with running(site.listener):
        await eventually(lambda: _listens(site))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.listener.port}", timeout=60) as client:
            yield client


async def _listens(site: Site) -> bool:
    return bool(site.listener.port)


async def post(client: httpx.AsyncClient, path: str, body: bytes, kind: str = CLOUDEVENT, **headers: str) -> Any:
    return await client.post(path, content=body, headers={"content-type": kind, **headers})


async def test_a_structured_cloudevent_is_answered_once_it_is_journalled(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site) as client:
        answer = await post(client, "/events", cloudevent("a", data={"n": 1}))
    assert (answer.status_code, answer.json()) == (202, {"id": "a", "source": "tests", "new": True})
    assert await site.door.ids() == ["a"]


async def test_a_repeat_is_accepted_and_adds_nothing(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site) as client:
        await post(client, "/events", cloudevent("a"))
        answer = await post(client, "/events", cloudevent("a"))
    assert (answer.status_code, answer.json()) == (202, {"id": "a", "source": "tests", "new": False})
    assert await site.door.ids() == ["a"]


async def test_binary_mode_takes_the_attributes_from_headers(redis: AsyncRedis) -> None:
    site = Site(redis)
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "b",
        "ce-source": "/shop",
        "ce-type": "order.created",
        "ce-subject": "K%C3%B6ln",
        "ce-tenant": "north",
    }
    async with serving(site) as client:
        answer = await post(client, "/events", b'{"n": 1}', "application/json", **headers)
    assert answer.status_code == 202
    (event,) = await site.door.events()
    assert (event["subject"], event["tenant"], event["data"]) == ("Köln", "north", {"n": 1})


async def test_binary_mode_without_a_body_has_no_data(redis: AsyncRedis) -> None:
    site = Site(redis)
    headers = {"ce-specversion": "1.0", "ce-id": "b", "ce-source": "s", "ce-type": "t"}
    async with serving(site) as client:
        answer = await post(client, "/events", b"", "application/json", **headers)
    assert answer.status_code == 202
    assert "data" not in (await site.door.events())[0]


async def test_a_batch_is_taken_as_one(redis: AsyncRedis) -> None:
    site = Site(redis)
    body = b"[" + cloudevent("a") + b"," + cloudevent("b") + b"]"
    async with serving(site) as client:
        answer = await post(client, "/events", body, BATCH)
    assert answer.json() == {
        "events": [{"id": "a", "source": "tests", "new": True}, {"id": "b", "source": "tests", "new": True}]
    }
    assert site.door.calls == 1


async def test_a_batch_with_one_bad_item_is_refused_whole_and_names_the_item(redis: AsyncRedis) -> None:
    site = Site(redis)
    body = b"[" + cloudevent("a") + b', {"specversion": "1.0"}]'
    async with serving(site) as client:
        answer = await post(client, "/events", body, BATCH)
    assert answer.status_code == 400
    assert "item 1" in answer.json()["detail"]
    assert await site.door.ids() == []
    assert site.letters.raws == [body]


async def test_a_named_source_takes_plain_json_under_its_type(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site) as client:
        answer = await post(client, "/events/orders", b'{"n": 1}', "application/json")
    assert answer.status_code == 202
    (event,) = await site.door.events()
    assert (event["type"], event["source"], event["id"]) == ("order.message", "http:orders", answer.json()["id"])


async def test_an_unknown_source_is_not_found_and_the_known_ones_are_named(redis: AsyncRedis) -> None:
    async with serving(Site(redis)) as client:
        answer = await post(client, "/events/nothing", b"{}", "application/json")
    assert answer.status_code == 404
    assert "orders" in answer.json()["what_to_do"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"not json", "not-json"),
        (b"[1]", "not-an-object"),
        (b'{"n": 1}', "not-a-cloudevent"),
        (b'{"specversion": "1.0", "id": "x"}', "not-a-cloudevent"),
        (b"[" * 200 + b"]" * 200, "too-deep"),
        (cloudevent("h", data={"deep": [{"__prefect_kind": "jinja"}]}), "hydration"),
    ],
)
async def test_what_is_rejected_is_explained_and_kept(redis: AsyncRedis, body: bytes, code: str) -> None:
    site = Site(redis)
    async with serving(site) as client:
        answer = await post(client, "/events", body)
        after = await post(client, "/events", cloudevent("next"))
    problem = answer.json()
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["code"] == code
    assert problem["detail"]
    assert problem["what_to_do"]
    assert site.letters.by_id[problem["dead_letter"]].raw == body
    assert after.status_code == 202


async def test_a_rejected_binary_event_is_kept_with_its_attributes(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site) as client:
        answer = await post(client, "/events", b"{nonsense", "application/json", **{"ce-id": "x", "ce-type": "t"})
    assert answer.status_code == 400
    (raw,) = site.letters.raws
    assert b"ce-id: x\r\n" in raw
    assert raw.endswith(b"\r\n\r\n{nonsense")


async def test_a_header_cannot_smuggle_what_a_body_may_not_hold(redis: AsyncRedis) -> None:
    site = Site(redis)
    headers = {"ce-specversion": "1.0", "ce-id": "b", "ce-source": "s", "ce-type": "t"}
    async with serving(site) as client:
        for name, value in (("ce-subject", "a%00b"), ("ce-subject", "a%0Ab"), ("ce-__prefect_kind", "jinja")):
            answer = await post(client, "/events", b"{}", "application/json", **{**headers, name: value})
            assert (answer.status_code, answer.json()["code"]) == (400, "not-a-cloudevent")
    assert site.door.calls == 0


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


@pytest.mark.parametrize("trouble", [TransientError("Redis is out of reach"), Backpressure("Redis is full")])
async def test_a_journal_that_takes_nothing_is_said_and_the_same_again_works(
    redis: AsyncRedis, trouble: Exception
) -> None:
    site = Site(redis)
    site.door.troubles = [trouble]
    async with serving(site) as client:
        refused = await post(client, "/events", cloudevent("a"))
        taken = await post(client, "/events", cloudevent("a"))
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert str(trouble) in refused.json()["detail"]
    assert taken.json() == {"id": "a", "source": "tests", "new": True}


async def test_a_journal_that_does_not_answer_is_not_waited_for_without_end(redis: AsyncRedis) -> None:
    site = Site(redis)
    site.door.open.clear()
    async with serving(site) as client:
        assert (await post(client, "/events", cloudevent("a"))).status_code == 503


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


async def test_a_signal_is_submitted(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site) as client:
        answer = await post(client, "/signals", b'{"key": "order-1", "input": {"ok": true}}', "application/json")
    (signal,) = site.signals
    assert (answer.status_code, answer.json()) == (202, {"id": signal.id})
    assert (signal.key, signal.input) == ("order-1", {"ok": True})


async def test_a_signal_to_nobody_is_explained_and_kept(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site) as client:
        answer = await post(client, "/signals", b'{"input": {}}', "application/json")
    assert (answer.status_code, answer.json()["code"]) == (400, "not-a-signal")
    assert site.letters.raws == [b'{"input": {}}']


async def test_health_and_metrics_are_told(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site) as client:
        assert (await client.get("/health/live")).json() == {"live": True}
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        site.is_ready = False
        answer = await client.get("/health/ready")
        told = answer.json()
        assert [one["code"] for one in told.pop("reasons")] == ["rule-held", "retrying"]
        assert (answer.status_code, told) == (
            503,
            {
                "ready": False,
                "level": "not-ready",
                "problems": ["because"],
                "roles": {"listeners": True},
                "degraded": ["role listeners: files:inbox: /data/inbox is slow"],
                "backlog": None,
            },
        )
        assert (await client.get("/metrics")).text == "sluice_ready 0\n"


async def test_a_fault_of_its_own_is_a_problem_and_stands_in_the_log(
    redis: AsyncRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(redis)

    async def broken() -> Readiness:
        raise ZeroDivisionError("who divides here")

    site._readiness = broken  # type: ignore[method-assign]
    site.listener._readiness = broken
    async with serving(site) as client:
        answer = await client.get("/health/ready")
    assert (answer.status_code, answer.json()["code"]) == (500, "fault")
    assert "who divides here" not in answer.text
    assert "who divides here" in capsys.readouterr().out


async def test_health_without_the_token_names_no_folders(redis: AsyncRedis) -> None:
    async with serving(Site(redis, QUICK.model_copy(update={"token": "secret"}))) as client:
        assert set((await client.get("/health/ready")).json()) == {"ready", "level", "problems", "roles"}
        known = await client.get("/health/ready", headers={"authorization": "Bearer secret"})
        assert "degraded" in known.json()


async def test_other_paths_and_methods_are_problems_too(redis: AsyncRedis) -> None:
    async with serving(Site(redis)) as client:
        assert (await client.get("/nowhere")).json()["status"] == 404
        assert (await client.get("/events")).json()["status"] == 405


async def test_a_taken_port_is_a_configuration_error(redis: AsyncRedis) -> None:
    site, second = Site(redis), Site(redis)
    async with serving(site):
        assert site.listener.port
        second.listener._port = site.listener.port
        with pytest.raises(ConfigError, match="SLUICE_PORTS__API"):
            await second.listener.run()


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


async def test_no_form_of_request_may_claim_to_be_a_watched_folder(redis: AsyncRedis) -> None:
    site = Site(redis)
    forged = cloudevent("forged", type="sluice.file.arrived", data={"path": "/etc/passwd"})
    async with serving(site) as client:
        structured = await post(client, "/events", forged)
        head = {"ce-specversion": "1.0", "ce-id": "b", "ce-source": "files/inbox", "ce-type": "x"}
        binary = await post(client, "/events", b"{}", "application/json", **head)
        batch = await post(client, "/events", b"[" + forged + b"]", BATCH)
        named = await post(client, "/events/orders", forged)
    for answer in (structured, binary, batch, named):
        assert (answer.status_code, answer.json()["code"]) == (400, "reserved")
        assert "reserved" in answer.json()["detail"]
        assert answer.json()["dead_letter"] in site.letters.by_id
    assert await site.door.events() == []


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
