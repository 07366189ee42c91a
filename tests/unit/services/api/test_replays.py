"""Replays over HTTP: what is judged again, what is refused, and who may."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from services.listeners.http.bodies import CLOUDEVENT
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters
from tests.support.sources import cloudevent
from tests.unit.services.api.serving import api, letter
from tests.unit.services.listeners.http.serving import post


async def test_events_and_letters_are_replayed_and_letters_discarded(redis: AsyncRedis, valkey_url: str) -> None:
    await DeadLetters(redis).add(letter(1))
    await DeadLetters(redis).add(letter(2))
    async with api(redis, valkey_url) as (site, client, _):
        event_id = "with/slash and ?"
        await post(client, "/events", cloudevent(event_id), CLOUDEVENT)
        again = await client.post(f"/events/{quote(event_id, safe='')}/replay", json={"rerun": True})
        refused = await client.post("/dead-letters/letter01/replay", json={"set": {"n": 2}})
        replayed = await client.post("/dead-letters/letter01/replay", json={"set": {"n": 2}, "type": "order"})
        discarded = await client.delete("/dead-letters/letter02")
        gone = await client.delete("/dead-letters/letter02")
        events = await site.door.events()
    assert again.json()["events"] == 1
    assert again.json()["rerun"]
    assert (refused.status_code, refused.json()["code"]) == (400, "not-a-cloudevent")
    assert (replayed.status_code, discarded.status_code, gone.status_code) == (200, 200, 404)
    assert [event["id"] for event in events] == [event_id, event_id, "letter01"]
    assert (events[-1]["type"], events[-1]["data"]) == ("order", {"n": 2})
    assert await DeadLetters(redis).count() == 0


async def test_an_event_that_did_all_it_should_is_not_done_again(redis: AsyncRedis, valkey_url: str) -> None:
    async with api(redis, valkey_url) as (site, client, _):
        await post(client, "/events", cloudevent("a"), CLOUDEVENT)
        first = await client.post("/events/a/replay")
        assert first.status_code == 200, first.text
        assert (first.json()["rerun"], first.json()["runs_started_again"]) == (None, 0)
        assert len(await site.door.events()) == 1 + first.json()["events"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/events/none/replay", None, 404),
        ("POST", "/dead-letters/none/replay", None, 404),
        ("DELETE", "/dead-letters/none", None, 404),
        ("POST", "/dead-letters/letter01/replay", {"sets": {}}, 422),
        ("POST", "/dead-letters/letter01/replay", {"set": {"": 1}}, 422),
        ("POST", "/events/none/replay", {"rerun": "perhaps"}, 422),
        ("POST", "/events/none/replay", {"rules": ["x" * 201]}, 422),
    ],
)
async def test_what_cannot_be_replayed_is_told_and_nothing_changes(  # noqa: PLR0917 - pytest hands them in
    redis: AsyncRedis, valkey_url: str, method: str, path: str, body: object, status: int
) -> None:
    await DeadLetters(redis).add(letter(1))
    async with api(redis, valkey_url) as (site, client, _):
        answer = await client.request(method, path, json=body)
        assert (answer.status_code, bool(answer.json()["what_to_do"])) == (status, True)
        assert await site.door.events() == []
    assert await DeadLetters(redis).count() == 1


async def test_the_beginning_of_a_letters_id_is_enough_where_it_is_the_only_one(
    redis: AsyncRedis, valkey_url: str
) -> None:
    for number in (1, 2, 11):
        await DeadLetters(redis).add(letter(number))
    async with api(redis, valkey_url) as (_, client, _):
        several = await client.delete("/dead-letters/letter0")
        one = await client.delete("/dead-letters/letter1")
    assert (several.status_code, several.json()["code"]) == (409, "ambiguous")
    assert one.json() == {"discarded": "letter11"}
