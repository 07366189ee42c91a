from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.cli import app
from services.store.rules.rules_in_force import InForce, RulesInForce
from tests.integration.rules.conftest import Routing, an_event

PRESENT = "rules:\n  - {name: small, on: order.*, when: event.data.n < 5, run: a/b}\n"
CHANGED = "rules:\n  - {name: small, on: order.*, when: event.data.n < 3, run: a/b}\n  - {name: new, on: x, run: c/d}\n"


@pytest.fixture
def changed(tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICE_REDIS_URL", valkey_url)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    path = tmp_path / "changed.yaml"
    path.write_text(CHANGED)
    return path


async def call(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


async def rows(*arguments: str) -> Any:
    result = await call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


async def test_against_last_tells_what_a_changed_file_would_have_done(routing: Routing, changed: Path) -> None:
    await RulesInForce(routing.redis).put(InForce("v1", "/gone/sluice.yaml", PRESENT, "2026-01-01T00:00:00Z"))
    await routing.publish(
        *(an_event("order.made", id_=f"e{n}", data={"n": n}) for n in range(6)), an_event("x", id_="x")
    )
    found = await rows("rules", "test", "--against-last", "100", "--config", str(changed))
    assert [(row["change"], row["event_id"], row["does"]) for row in found] == [
        ("missing", "e3", "run a/b"),
        ("missing", "e4", "run a/b"),
        ("started", "x", "run c/d"),
    ]
    last_two = await rows("rules", "test", "--against-last", "2", "--config", str(changed))
    assert [row["event_id"] for row in last_two] == ["x"]
    only = await rows("rules", "test", "--against-last", "100", "--config", str(changed), "--rule", "new")
    assert [row["event_id"] for row in only] == ["x"]
    said = (await call("rules", "test", "--against-last", "100", "--config", str(changed))).stderr
    assert "7 events" in said
    assert "does 1 things" in said


async def test_against_last_needs_rules_in_force(routing: Routing, changed: Path) -> None:
    result = await call("rules", "test", "--against-last", "10", "--config", str(changed))
    assert result.exit_code == 1
    assert "no rules are in force yet" in result.stderr


async def test_dropped_counts_and_lists(routing: Routing, changed: Path) -> None:
    assert await rows("rules", "dropped") == []
    routing.use({"run": "a/b", "throttle": {"key": "{{ event.subject }}", "per_seconds": 60}})
    await routing.publish(*(an_event(id_=f"e{n}", subject="s") for n in range(3)))
    await routing.route()
    assert await rows("rules", "dropped") == [{"rule": "r", "dropped": 2}]
    listed = await rows("rules", "dropped", "r")
    assert [(row["event_id"], row["why"], row["key"]) for row in listed] == [
        ("e2", "throttled", "s"),
        ("e1", "throttled", "s"),
    ]
    assert "e2" in (await call("rules", "dropped", "r", "--limit", "1")).stdout
