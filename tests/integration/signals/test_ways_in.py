"""Every way in for a signal, through the roles' own processes: each resumes its run, and says where it came in."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

import sluice
from services.local.embedded_servers import claim_port
from services.operations.health import read_reports
from services.store.connection import AsyncRedis
from tests.integration.signals.conftest import Desk, new_key
from tests.support.waiting import eventually
from tests.support.warm import start_module

ROLES = ("listeners", "router", "resumer", "api")
ORIGINS = {
    "channel": "redis:resume",
    "stream": "redis:resume",
    "list": "redis:answers",
    "http": "http:signals",
    "cloudevent": "redis:resume",
    "event": "event ",
    "file": "event ",
    "library": "redis:resume",
}
PROJECT = """
sources:
  files:
    approved: {path: approved, include: ["*.ok"]}
  redis:
    resume: {channel: sluice.resume, stream: sluice.resume, carries: signals}
    answers: {list: "test:answers", carries: signals}
rules:
  - name: approve-by-file
    on: sluice.file.arrived
    resume: {key: "{{ event.data.name | stem }}", input: {way: file}, by: "{{ event.data.path }}"}
  - name: approve-by-event
    on: order.approved
    resume: {key: "{{ event.data.key }}", input: {way: event}}
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def port() -> int:
    return claim_port(0, "a free port")


@pytest.fixture
def roles(tmp_path: Path, checkout: Path, valkey_url: str, prefect_url: str, port: int) -> Iterator[Path]:
    """The roles as processes of their own; answers their home."""
    (tmp_path / "approved").mkdir()
    (tmp_path / "sluice.yaml").write_text(PROJECT)
    env = {
        **os.environ,
        "PREFECT_API_URL": prefect_url,
        "SLUICE_REDIS_URL": valkey_url,
        "SLUICE_HOME": str(tmp_path / "home"),
        "SLUICE_CONFIG": str(tmp_path / "sluice.yaml"),
        "SLUICE_PORTS__API": str(port),
    }
    with ExitStack() as stack:
        for role in ROLES:
            log = stack.enter_context((tmp_path / f"{role}.log").open("wb"))
            process = start_module("services.cli", "run", role, cwd=checkout, env=env, stdout=log, stderr=log)
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
        yield tmp_path


async def test_a_signal_may_come_in_by_every_way(
    submission: Desk, redis: AsyncRedis, valkey_url: str, roles: Path, port: int
) -> None:
    async def ready() -> bool:
        reports = await read_reports(redis)
        return {report["role"] for report in reports if report["ready"]} >= set(ROLES)

    await eventually(ready, what=f"the roles are ready, see {roles}")
    keys = {way: new_key() for way in ORIGINS}
    runs = {way: await submission.park(key) for way, key in keys.items()}

    def message(way: str) -> dict[str, Any]:
        return {"key": keys[way], "input": {"way": way}, "by": "ann"}

    def event(kind: str, data: dict[str, Any]) -> dict[str, Any]:
        return {"specversion": "1.0", "id": new_key(), "source": "test", "type": kind, "data": data}

    await redis.publish("sluice.resume", json.dumps(message("channel")))
    await redis.xadd("sluice.resume", {"event": json.dumps(message("stream"))})
    await redis.xadd("sluice.resume", {"event": json.dumps(event("sluice.resume", message("cloudevent")))})
    await redis.rpush("test:answers", json.dumps(message("list")))
    await redis.publish("sluice.events", json.dumps(event("order.approved", {"key": keys["event"]})))
    (roles / "approved" / f"{keys['file']}.ok").write_text("yes")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        told = await http.post("/signals", params={"wait": 30}, json=message("http"))
        assert (told.status_code, told.json()["outcome"]) == (200, "applied")
        assert (await http.post("/signals", params={"wait": "long"}, json=message("http"))).status_code == 400
    await asyncio.to_thread(
        lambda: sluice.send_signal(key=keys["library"], input={"way": "library"}, by="ann", url=valkey_url)
    )

    for way, run_id in runs.items():

        async def resumed(run_id: str = run_id) -> Any:
            return await submission.answer(run_id)

        answer = await eventually(resumed, what=f"the run is resumed by way of {way}")
        assert answer == {"way": way}
        (record,) = await submission.store.of_run(run_id)
        assert record.origin.startswith(ORIGINS[way])
        assert await submission.resumes(run_id) == 1

    await submission.set_state(runs["http"], "COMPLETED")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        late = (await http.post("/signals", params={"wait": 30}, json=message("http"))).json()
        kept = (await http.post("/signals", params={"wait": 30}, json=message("http") | {"buffer": True})).json()
    assert (late["outcome"], kept["outcome"]) == ("late", "buffered")
    assert f"({runs['http']}) is Completed, answered by ann" in late["reason"]
