"""The HTTP binding of CloudEvents 1.0: cases of the specification, its conformance features and its SDKs' tests."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from services.listeners.http.bodies import BATCH, CLOUDEVENT
from services.store.connection import AsyncRedis
from tests.unit.services.listeners.http.serving import Site, post, serving

ATTRIBUTES = {
    "specversion": "1.0",
    "type": "com.example.someevent",
    "time": "2018-04-05T03:56:24Z",
    "id": "1234-1234-1234",
    "source": "/mycontext/subcontext",
}
HEADERS = {f"ce-{name}": value for name, value in ATTRIBUTES.items()}
HELLO = {"message": "Hello World!"}
JSON = "application/json"


async def _raw(client: httpx.AsyncClient, headers: list[tuple[str | bytes, str | bytes]], body: bytes = b"{}") -> Any:
    pairs = [tuple(part if isinstance(part, bytes) else part.encode() for part in pair) for pair in headers]
    return await client.request("POST", "/events", headers=pairs, content=body)


@pytest.mark.parametrize(
    "kind",
    [JSON, f"{JSON}; charset=utf-8", f'{JSON};charset="UTF-8"', "Application/JSON", "application/vnd.acme.order+json"],
)
async def test_binary_mode(redis: AsyncRedis, kind: str) -> None:
    site = Site(redis)
    async with serving(site) as client:
        answer = await post(client, "/events", json.dumps(HELLO).encode(), kind, **HEADERS)
    assert answer.status_code == 202
    assert await site.door.events() == [{**ATTRIBUTES, "data": HELLO}]


@pytest.mark.parametrize(
    "kind", [CLOUDEVENT, f"{CLOUDEVENT}; charset=utf-8", f"{CLOUDEVENT};charset=UTF-8", "Application/CloudEvents+JSON"]
)
async def test_structured_mode(redis: AsyncRedis, kind: str) -> None:
    site = Site(redis)
    body = json.dumps({**ATTRIBUTES, "datacontenttype": JSON, "data": HELLO}).encode()
    async with serving(site) as client:
        answer = await post(client, "/events", body, kind)
    assert answer.status_code == 202
    assert await site.door.events() == [{**ATTRIBUTES, "data": HELLO}]


@pytest.mark.parametrize("data", ["Hello, 🌎!", {"msg": "Hello, 🌎!"}, ["Hello", "🌎!"], 7, 1.5, True, "", [], {}])
async def test_data_of_every_type_is_the_same_in_every_mode(redis: AsyncRedis, data: Any) -> None:
    site = Site(redis)
    raw = json.dumps(data, ensure_ascii=False).encode()
    async with serving(site) as client:
        await post(client, "/events", raw, JSON, **{**HEADERS, "ce-id": "binary"})
        await post(client, "/events", json.dumps({**ATTRIBUTES, "id": "structured", "data": data}).encode())
        await post(client, "/events", json.dumps([{**ATTRIBUTES, "id": "batch", "data": data}]).encode(), BATCH)
    assert [(event["id"], event["data"]) for event in await site.door.events()] == [
        (mode, data) for mode in ("binary", "structured", "batch")
    ]


async def test_names_of_headers_know_no_case_and_unneeded_encoding_is_taken(redis: AsyncRedis) -> None:
    site = Site(redis)
    given = {"CE-SpecVersion": "1.0", "Ce-Id": "%31", "cE-source": '"/a b"', "CE-TYPE": "t", "ce-Tenant": "n%C3%B6rd"}
    async with serving(site) as client:
        assert (await post(client, "/events", b"{}", JSON, **given)).status_code == 202
    (event,) = await site.door.events()
    assert (event["id"], event["source"], event["tenant"]) == ("1", "/a b", "nörd")


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"ce-subject": "caf%E9"}, "ce-subject is not UTF-8"),
        ({"ce-subject": "%C0%A0"}, "ce-subject is not UTF-8"),
        ({"ce-subject": '"open'}, "double quote"),
        ({"ce-subject": ""}, "subject"),
        ({"ce-subject": "a%9Bb".replace("%9B", "%C2%9B")}, "U+009B"),
        ({"ce-id": ""}, "id"),
        ({"ce-time": "1522900584"}, "time"),
        ({"ce-specversion": "0.3"}, "specversion"),
        ({"ce-data": "{}"}, "ce-data is not an attribute"),
        ({"ce-data_base64": "e30="}, "data_base64"),
        ({"ce-my_ext": "x"}, "my_ext"),
        ({"ce-": "x"}, "attribute name ''"),
    ],
)
async def test_a_bad_header_is_refused_and_named(redis: AsyncRedis, headers: dict[str, str], said: str) -> None:
    site = Site(redis)
    async with serving(site) as client:
        answer = await post(client, "/events", b"{}", JSON, **{**HEADERS, **headers})
    assert (answer.status_code, answer.json()["code"]) == (400, "not-a-cloudevent")
    assert said in answer.json()["detail"]
    assert answer.json()["dead_letter"] in site.letters.by_id
    assert await site.door.events() == []


@pytest.mark.parametrize("name", ["ce-specversion", "ce-id", "ce-type"])
async def test_a_missing_header_is_named(redis: AsyncRedis, name: str) -> None:
    site = Site(redis)
    headers = {key: value for key, value in HEADERS.items() if key != name}
    async with serving(site) as client:
        answer = await post(client, "/events", b"{}", JSON, **headers)
    assert answer.status_code == 400
    assert name.removeprefix("ce-") in answer.json()["detail"]


async def test_a_header_that_stands_twice_is_refused(redis: AsyncRedis) -> None:
    site = Site(redis)
    given: list[tuple[str | bytes, str | bytes]] = [("content-type", JSON), *HEADERS.items(), ("CE-ID", "other")]
    async with serving(site) as client:
        answer = await _raw(client, given)
        twice = await _raw(client, [("content-type", JSON), ("content-type", CLOUDEVENT), *HEADERS.items()])
    assert (answer.status_code, answer.json()["detail"]) == (400, "the header ce-id stands twice")
    assert (twice.status_code, await site.door.events()) == (415, [])


async def test_bytes_of_a_header_are_utf_8_or_refused_and_kept(redis: AsyncRedis) -> None:
    site = Site(redis)
    given: list[tuple[str | bytes, str | bytes]] = [("content-type", JSON), *HEADERS.items()]
    async with serving(site) as client:
        assert (await _raw(client, [*given, ("ce-subject", "Köln".encode())])).status_code == 202
        assert (await _raw(client, [*given, ("ce-subject", "Köln".encode("latin-1"))])).status_code == 400
    assert [event["subject"] for event in await site.door.events()] == ["Köln"]
    assert b"ce-subject: K\xf6ln\r\n" in site.letters.raws[0]


async def test_an_event_in_headers_needs_no_content_type(redis: AsyncRedis) -> None:
    site = Site(redis)
    async with serving(site) as client:
        assert (await _raw(client, list(HEADERS.items()), b"")).status_code == 202
        rest = [pair for pair in HEADERS.items() if pair[0] != "ce-id"]
        assert (await _raw(client, [*rest, ("ce-id", "2")], b'{"n": 1}')).status_code == 202
        no_json = await _raw(client, [*rest, ("ce-id", "3")], b"<n/>")
        no_event = await _raw(client, [("ce-id", "4")], b"{}")
    assert [answer.status_code for answer in (no_json, no_event)] == [400, 415]
    assert await site.door.events() == [ATTRIBUTES, {**ATTRIBUTES, "id": "2", "data": {"n": 1}}]


@pytest.mark.parametrize("kind", [f"{CLOUDEVENT}; charset=iso-8859-1", f"{JSON}; charset=utf-16"])
async def test_another_charset_than_utf_8_is_refused(redis: AsyncRedis, kind: str) -> None:
    site = Site(redis)
    async with serving(site) as client:
        answer = await post(client, "/events", json.dumps(ATTRIBUTES).encode(), kind, **HEADERS)
    assert (answer.status_code, answer.json()["code"]) == (415, "not-utf-8")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "application/cloudevents", "application/cloudevents+avro"]
)
async def test_what_is_not_json_is_refused_in_every_mode(redis: AsyncRedis, kind: str) -> None:
    site = Site(redis)
    async with serving(site) as client:
        assert (await post(client, "/events", b"<msg/>", kind, **HEADERS)).status_code == 415
    assert site.door.calls == 0


@pytest.mark.parametrize("body", [b"1", b"1.5", b"null", b'"text"', b"[]", b"gg", b""])
async def test_a_structured_event_is_an_object(redis: AsyncRedis, body: bytes) -> None:
    site = Site(redis)
    async with serving(site) as client:
        answer = await post(client, "/events", body)
    assert (answer.status_code, answer.json()["code"] in {"not-an-object", "not-json"}) == (400, True)


async def test_what_calls_itself_a_cloudevent_is_none_without_its_version(redis: AsyncRedis) -> None:
    site = Site(redis)
    body = {name: value for name, value in ATTRIBUTES.items() if name != "specversion"}
    async with serving(site) as client:
        for content, kind in ((body, CLOUDEVENT), ([body], BATCH), ({**body, "specversion": None}, CLOUDEVENT)):
            answer = await post(client, "/events/orders", json.dumps(content).encode(), kind)
            assert answer.status_code == 400
            assert "`specversion` is missing" in answer.json()["detail"]
        assert (await post(client, "/events/orders", json.dumps(body).encode(), JSON)).status_code == 202
    assert [event["type"] for event in await site.door.events()] == ["order.message"]


async def test_null_counts_as_unset_in_every_mode(redis: AsyncRedis) -> None:
    site = Site(redis)
    nulls = {"time": None, "traceparent": None, "subject": None, "data": None, "datacontenttype": None}
    async with serving(site) as client:
        structured = await post(client, "/events", json.dumps({**ATTRIBUTES, **nulls, "id": "1"}).encode())
        batch = await post(client, "/events", json.dumps([{**ATTRIBUTES, **nulls, "id": "2"}]).encode(), BATCH)
    assert (structured.status_code, batch.status_code) == (202, 202)
    assert [set(event) for event in await site.door.events()] == [set(ATTRIBUTES), set(ATTRIBUTES)]


async def test_an_event_without_a_source_has_its_listeners_in_every_mode(redis: AsyncRedis) -> None:
    site = Site(redis)
    body = {name: value for name, value in ATTRIBUTES.items() if name != "source"}
    headers = {name: value for name, value in HEADERS.items() if name != "ce-source"}
    async with serving(site) as client:
        for path in ("/events", "/events/orders"):
            first = await post(client, path, json.dumps(body).encode())
            again = [
                await post(client, path, json.dumps([body]).encode(), BATCH),
                await post(client, path, b"", JSON, **headers),
            ]
            assert first.json()["new"] is True
            assert again[0].json()["events"][0]["new"] is again[1].json()["new"] is False
    assert [event["source"] for event in await site.door.events()] == ["http", "http:orders"]


async def test_a_batch_may_be_empty_and_hold_one_event_twice(redis: AsyncRedis) -> None:
    site = Site(redis)
    body = json.dumps([ATTRIBUTES, {**ATTRIBUTES, "source": "/other"}, ATTRIBUTES]).encode()
    async with serving(site) as client:
        empty = await post(client, "/events", b"[]", BATCH)
        answer = await post(client, "/events", body, BATCH)
    assert (empty.status_code, empty.json()) == (202, {"events": []})
    assert [one["new"] for one in answer.json()["events"]] == [True, True, False]
