"""What commands list and change in Redis, by which filters; Prefect is away."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from events.dead_letter import DeadLetter
from services.cli import app
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters

Call = Callable[..., Coroutine[Any, Any, Result]]

EVENT = json.dumps({"specversion": "1.0", "id": "one", "source": "shop", "type": "order.placed"})


@pytest.fixture
def call(redis: AsyncRedis, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("SLUICE_REDIS_URL", valkey_url)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))

    async def invoke(*words: str, stdin: str | None = None) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, list(words), input=stdin)

    return invoke


async def found(call: Call, *words: str) -> Any:
    result = await call(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def test_events_are_listed_by_attributes_and_time(call: Call) -> None:
    assert (await call("events", "publish", "-", stdin=EVENT)).stdout == "one\n"
    for options in ([], ["--since", "1h", "--type", "order.*"], ["--source", "shop"]):
        assert [row["id"] for row in await found(call, "events", "list", *options)] == ["one"]
    for options in (["--until", "1h"], ["--type", "x"], ["--failed"]):
        assert await found(call, "events", "list", *options) == []
    shown = await found(call, "events", "show", "one")
    assert (shown["outcome"], shown["waits_for"]) == ("waiting", [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["events", "list", "--type", "["], "type: the set '[' is never closed"),
        (["dead", "list", "--source", "["], "source: the set '[' is never closed"),
        (["events", "list", "--rule", "nobody"], "has no such rule"),
        (["events", "list", "--since", "1h", "--until", "2h"], "is not before --until"),
        (["events", "replay"], "name either ids of events"),
        (["events", "replay", "one", "--type", "x"], "name either ids of events"),
        (["dead", "discard", "one", "--all"], "name ids of letters, or at least one option"),
        (["dead", "list", "--kind", "massage"], "'massage' is not one of 'message'"),
        (["signals", "list", "--outcome", "gone"], "'gone' is not one of 'received'"),
    ],
)
async def test_a_filter_that_cannot_be_is_misuse(call: Call, words: list[str], said: str) -> None:
    result = await call(*words)
    assert (result.exit_code, said in " ".join(result.stderr.replace("│", " ").split())) == (2, True), result.output


async def test_letters_are_chosen_shown_and_discarded(call: Call, redis: AsyncRedis) -> None:
    at = datetime.now(UTC)
    for number in range(3):
        await DeadLetters(redis).add(
            DeadLetter(
                id=f"abcd{number}", kind="message", code="x", reason="r", source="s", raw=b"{}",
                first_failed=at, last_failed=at,
            )
        )  # fmt: skip
    assert len(await found(call, "dead", "list")) == 3
    assert await found(call, "dead", "list", "--until", "1h") == []
    assert "1 of 3 letters" in (await call("dead", "list", "--limit", "1")).stderr
    assert (await found(call, "dead", "show", "abcd1"))["content"] == {}
    assert len(await found(call, "dead", "discard", "--code", "x", "--dry-run")) == 3
    assert await found(call, "dead", "discard", "abcd0") == {"discarded": 1}
    refused = await call("dead", "replay", "abcd1", "--set", "n=1", "--json")
    assert (refused.exit_code, json.loads(refused.stdout)["replayed"]) == (1, 0)
    assert await found(call, "dead", "replay", "abcd1", "--type", "t", "--set", "n=1") == {"replayed": 1, "failed": []}
    assert await found(call, "dead", "discard", "--all") == {"discarded": 1}


async def test_signals_are_sent_and_listed(call: Call) -> None:
    sent = await found(call, "signals", "send", "--key", "k", "--wait", "0")
    assert sent["outcome"] == "received"
    for options in (["--key", "k"], ["--since", "1h"], ["--outcome", "received"]):
        assert [row["id"] for row in await found(call, "signals", "list", *options)] == [sent["id"]]
    assert await found(call, "signals", "list", "--outcome", "applied") == []
    assert (await found(call, "signals", "show", sent["id"][:8]))["key"] == "k"


async def test_times_are_in_utc_when_that_is_asked_for(call: Call) -> None:
    await call("events", "publish", "-", stdin=EVENT)
    in_utc = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
    assert not in_utc.search((await call("events", "list")).stdout)
    assert in_utc.search((await call("events", "list", "--utc")).stdout)


async def test_a_check_looks_at_a_redis_of_ones_own_and_goes_on_without_prefect(call: Call) -> None:
    result = await call("check")
    assert result.exit_code == 0, result.output
    assert "warning: Prefect could not be asked" in result.stderr
    runs = await call("runs", "list")
    assert (runs.exit_code, "does not answer" in runs.stderr) == (1, True)
