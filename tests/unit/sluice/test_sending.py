"""`publish` and `send_signal`: what stands on the streams afterwards, and what is refused before anything does."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

import sluice
from events.signal import parse_signal
from events.untrusted_json import Limits
from services.store.connection import AsyncRedis
from sluice.protocol import EVENTS_NAME, RESUME_NAME


@pytest.fixture
def client(redis: AsyncRedis, valkey_url: str) -> Iterator[Redis]:
    """A blocking client on the emptied Valkey."""
    with Redis.from_url(valkey_url) as opened:
        yield opened


def on_stream(client: Redis, stream: str) -> list[dict[str, Any]]:
    return [json.loads(fields[b"event"]) for _, fields in client.xrange(stream)]


def test_an_event_is_a_cloudevent_on_the_stream_that_sluice_reads(client: Redis) -> None:
    event_id = sluice.publish("order.created", {"n": 1, "who": "Zoë"}, source="shop", subject="o-7", redis=client)
    (event,) = on_stream(client, EVENTS_NAME)
    assert event.pop("time").endswith("+00:00")
    assert event == {
        "specversion": "1.0", "id": event_id, "source": "shop", "type": "order.created", "subject": "o-7",
        "data": {"n": 1, "who": "Zoë"},
    }  # fmt: skip


def test_an_id_of_ones_own_is_kept_and_others_differ(client: Redis) -> None:
    assert sluice.publish("a", id="mine", redis=client) == "mine"
    assert sluice.publish("a", redis=client) != sluice.publish("a", redis=client)
    assert "subject" not in on_stream(client, EVENTS_NAME)[0]


def test_a_url_or_the_environment_names_the_server(
    client: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sluice.publish("a", id="1", url=valkey_url, stream="test:own")
    monkeypatch.setenv("SLUICE_REDIS_URL", valkey_url)
    sluice.publish("a", id="2", stream="test:own")
    assert [event["id"] for event in on_stream(client, "test:own")] == ["1", "2"]


def test_without_a_server_it_says_what_to_pass() -> None:
    with pytest.raises(ValueError, match="pass `redis` or `url`, or set SLUICE_REDIS_URL"):
        sluice.publish("a")


@pytest.mark.parametrize(("type_", "source"), [("sluice.file.arrived", "shop"), ("a", "files/inbox")])
def test_what_is_sluices_own_is_refused(client: Redis, type_: str, source: str) -> None:
    with pytest.raises(ValueError, match="Sluice's own"):
        sluice.publish(type_, source=source, redis=client)
    assert on_stream(client, EVENTS_NAME) == []


@pytest.mark.parametrize("data", [float("nan"), {"a": float("inf")}])
def test_numbers_that_json_lacks_are_refused(client: Redis, data: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        sluice.publish("a", data, redis=client)
    assert on_stream(client, EVENTS_NAME) == []


def test_a_signal_says_only_what_differs_from_the_default(client: Redis) -> None:
    signal_id = sluice.send_signal(key="order-7", input={"ok": True}, redis=client)
    assert on_stream(client, RESUME_NAME) == [
        {"id": signal_id, "input": {"ok": True}, "action": "resume", "key": "order-7"}
    ]


def test_a_signal_is_one_that_sluice_reads(client: Redis) -> None:
    sluice.send_signal(key="k", input={"n": 1}, by="ann", deliver="one", id="s", redis=client)
    ((_, fields),) = client.xrange(RESUME_NAME)
    signal = parse_signal(fields[b"event"], limits=Limits())
    assert (signal.id, signal.key, signal.by, signal.deliver, signal.input) == ("s", "k", "ann", "one", {"n": 1})


def test_a_signal_carries_all_that_it_is_given(client: Redis) -> None:
    run_id = uuid.uuid4()
    sluice.send_signal(
        run_id=run_id, action="reject", reason="no", by="ada", deliver="one", ttl_seconds=5, buffer=True, id="s",
        redis=client,
    )  # fmt: skip
    assert on_stream(client, RESUME_NAME) == [
        {
            "id": "s", "input": {}, "action": "reject", "run_id": str(run_id), "reason": "no", "by": "ada",
            "ttl_seconds": 5, "deliver": "one", "buffer": True,
        }
    ]  # fmt: skip


@pytest.mark.parametrize("whom", [{}, {"key": "k", "run_id": "r"}])
def test_a_signal_is_for_a_key_or_for_a_run(whom: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="exactly one of `key` and `run_id`"):
        sluice.send_signal(**whom)
