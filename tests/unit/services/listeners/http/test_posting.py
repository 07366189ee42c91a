"""Events and signals by POST, with the real journal behind them."""

from __future__ import annotations

import pytest

from events.errors import Backpressure, TransientError
from services.listeners.http.bodies import BATCH
from services.store.connection import AsyncRedis
from tests.support.sources import cloudevent
from tests.unit.services.listeners.http.serving import Site, post, serving


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
