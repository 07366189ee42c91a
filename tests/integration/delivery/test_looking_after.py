"""The flows that look after the others, on real servers: the daily report and the health check."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prefect.settings import PREFECT_API_URL, temporary_settings

from demo.every_flow import web_server
from flows.daily_report import daily_report, report
from flows.health_check import failed_runs, health_check, prefect_api
from services.local.embedded_servers import claim_port
from services.prefect_api.client import PrefectApi
from tests.integration.delivery.world import RULE, World, deployment, order, runs_of, set_state
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def home(valkey_url: str, prefect_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the `sluice` command that the flows ask finds the servers."""
    monkeypatch.setenv("SLUICE_REDIS_URL", valkey_url)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest_asyncio.fixture
async def happened(world: World, prefect: PrefectApi) -> str:
    """Four events have led to two runs that failed alike, one that waits, and a dead letter; the flow's name."""
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    async with world.running("router", "dispatcher"):
        await world.publish(*(order(amount) for amount in (1, 2, 3, "many")))
        await eventually(lambda: _runs(prefect, name, 3))
        await eventually(world.dead.count)
    first, second, third = await runs_of(prefect, name)
    flow = name.partition("/")[0]
    await set_state(prefect, first["id"], "FAILED", message=f"{flow} has no account 17 for 'ann'")
    await set_state(prefect, second["id"], "FAILED", message=f"{flow} has no account 18 for 'bob'\nand more")
    await set_state(prefect, third["id"], "PAUSED")
    await prefect.request("PATCH", f"/flow_runs/{third['id']}", json={"name": f"third of {flow}"})
    return flow


@pytest_asyncio.fixture
async def webhook(prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[bytes]]:
    """What is posted to the webhook of the environment."""
    monkeypatch.setenv("WEBHOOK_TOKEN", "t")
    taken: list[bytes] = []
    with web_server(taken) as address:
        body = {"name": "webhook_url_development", "value": f"{address}/hook"}
        await prefect.request("POST", "/variables/", json=body)
        yield taken
        await prefect.request("DELETE", "/variables/name/webhook_url_development")


async def reported() -> tuple[str, str]:
    """The message of a run of the flow, and its report without the marks that keep markup from meaning something."""

    def run() -> tuple[str, str]:
        state = daily_report(hours=1, return_state=True)
        return str(state.message), str(state.result()).replace("\\", "")

    return await asyncio.to_thread(run)


async def test_the_report_counts_names_and_is_sent(happened: str, webhook: list[bytes]) -> None:
    message, text = await reported()
    assert message.startswith("reported and sent: 4 events, ")
    assert message.endswith(" waiting, 1 dead")
    assert "| order.placed | 4 | ████████████████████ |" in text
    assert f"| {happened} | 3 |" in text
    assert " has no account … for … | 2 |" in text.partition("## Failures by reason")[2]
    assert "| parameters-refused | 1 |" in text.partition("## Dead letters by code")[2]
    assert "## Slowest runs" in text
    waiting = text.partition("## Waiting")[2]
    assert f"third of {happened}: " in waiting
    assert "rule:pay" in waiting
    (sent,) = webhook
    assert json.loads(sent)["text"].replace("\\", "") == text


async def test_a_report_of_an_hour_without_events_goes_nowhere_and_has_no_empty_charts(world: World) -> None:
    message, text = await reported()
    assert message.startswith("reported: 0 events, ")
    assert "Events by type" not in text


async def test_slow_runs_of_one_name_are_all_listed() -> None:
    run = {
        "name": "nightly",
        "flow": "f",
        "state_type": "COMPLETED",
        "state_name": "Completed",
        "tags": [],
        "state": {},
    }
    text = report.fn(24, [run | {"total_run_time": 2.0}, run | {"total_run_time": 3.5}], [], [])
    assert text.endswith("## Slowest runs\n\n- nightly: 3.5 s \\(f\\)\n- nightly: 2.0 s \\(f\\)")


async def test_the_health_check_says_what_sluice_itself_says(happened: str, home: Path) -> None:
    """Nothing runs on these servers, and there is a dead letter."""
    state = await asyncio.to_thread(
        health_check, least_free_gib=0, most_failures=10_000, most_dead_letters=0, return_state=True
    )
    assert state.is_failed()
    assert "dead letters: more than 0 in the last hour, the newest: Parameter validation failed" in str(state.message)
    assert "Sluice: role listeners is not ready" in str(state.message)
    for well in ("Prefect API", "database", "disk", "failed runs"):
        assert well not in str(state.message)
    with pytest.raises(RuntimeError, match="in the last hour, at most 1 are expected"):
        await asyncio.to_thread(failed_runs, 1)


async def test_a_prefect_that_does_not_answer_is_not_well() -> None:
    with (
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{claim_port(0, 'a port')}/api"}),
        pytest.raises(RuntimeError, match="Connection refused"),
    ):
        await asyncio.to_thread(prefect_api)


async def test_as_a_program_the_check_ends_with_0_or_1_and_says_why(
    prefect_url: str, checkout: Path, home: Path
) -> None:
    async def check(url: str, **parameters: Any) -> tuple[int, str]:
        command = [sys.executable, "-m", "flows.health_check", json.dumps({"with_sluice": False, **parameters})]
        env = {**os.environ, "PREFECT_API_URL": url}
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=checkout, env=env, capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stderr.splitlines()[-1]

    well: dict[str, Any] = {"least_free_gib": 0, "most_failures": 10_000}
    assert (await check(prefect_url, **well))[0] == 0
    code, said = await check(prefect_url, **{**well, "least_free_gib": 1e9})
    assert code == 1
    assert said.startswith("not well: disk: ")
    code, said = await check(f"http://127.0.0.1:{claim_port(0, 'a port')}/api", **well)
    assert code == 1
    assert said.startswith("not well: Prefect API: ")


async def _runs(prefect: PrefectApi, name: str, count: int) -> bool:
    return len(await runs_of(prefect, name)) == count
