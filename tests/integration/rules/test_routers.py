"""Windows under real router processes, several at once, that are killed at random moments."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.prefect_api.client import PrefectApi, connect
from services.store.connection import AsyncRedis
from services.store.rules.windows import Counts
from tests.integration.delivery.world import deployment, runs_of
from tests.integration.rules.conftest import Routing, an_event
from tests.support.waiting import eventually
from tests.support.warm import ModuleProcess, start_module

OPEN = {"type": "object", "properties": {"rows": {}, "pair": {}, "page": {}}, "additionalProperties": False}
RULES = """\
rules:
  - name: rows
    on: row
    batch: {{max_events: 7, max_wait_seconds: 0.5, key: "{{{{ event.subject }}}}"}}
    run: {run}
    parameters: {{rows: "{{{{ events | map(attribute='data') }}}}"}}
  - name: pairs
    correlate: {{all: {{left: left, right: right}}, key: "{{{{ event.subject }}}}", within_seconds: 300}}
    run: {run}
    parameters: {{pair: "{{{{ [joined.left.data, joined.right.data] }}}}"}}
"""


@pytest_asyncio.fixture
async def prefect(prefect_url: str) -> AsyncIterator[PrefectApi]:
    async with connect() as api:
        assert api.url == prefect_url
        yield api


class Routers:
    """Router processes as `sluice run router` starts them."""

    def __init__(self, env: dict[str, str], checkout: Path, log: Path) -> None:
        self._env = env
        self._checkout = checkout
        self._log = log.open("wb")
        self._running: list[ModuleProcess] = []

    def start(self) -> None:
        words = ("services.cli", "run", "router")
        self._running.append(
            start_module(*words, env=self._env, cwd=self._checkout, stdout=self._log, stderr=self._log)
        )

    def kill(self, index: int) -> None:
        victim = self._running.pop(index)
        victim.kill()
        victim.wait(10)

    def end(self) -> None:
        while self._running:
            self.kill(0)
        self._log.close()


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_killed_routers_lose_and_repeat_nothing_that_windows_hold(
    redis: AsyncRedis, valkey_url: str, prefect: PrefectApi, tmp_path: Path, checkout: Path
) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)  # noqa: T201 - to play it again
    chance = random.Random(seed)
    run = await deployment(prefect, schema=OPEN)
    config = tmp_path / "sluice.yaml"
    config.write_text(RULES.format(run=run))
    env = {
        **os.environ,
        "SLUICE_REDIS_URL": valkey_url,
        "SLUICE_CONFIG": str(config),
        "SLUICE_HOME": str(tmp_path / "home"),
        "SLUICE_JOURNAL__CLAIM_IDLE_SECONDS": "1",
        "SLUICE_JOURNAL__BATCH": "5",
    }
    routing = Routing(redis)
    routers = Routers(env, checkout, tmp_path / "routers.log")
    rows = [an_event("row", id_=f"row-{n}-{uuid.uuid4()}", subject=f"s{n % 3}", data=n) for n in range(90)]
    pairs = [an_event(kind, subject=f"p{n}", data=f"{kind}{n}") for n in range(20) for kind in ("left", "right")]
    events = chance.sample([*rows, *pairs], k=130)
    try:
        routers.start()
        routers.start()
        for index, event in enumerate(events):
            await routing.publish(event)
            await asyncio.sleep(chance.uniform(0, 0.15))
            if index in {30, 70, 100}:
                routers.kill(chance.randrange(2))
                routers.start()

        async def done() -> bool:
            return await routing.store.counts() == Counts(0, 0, 0) and not await routing.queues.names()

        await eventually(lambda: _routed(routing, len(events)), within_seconds=120, what="everything is routed")
        await eventually(done, within_seconds=120, what="every window is closed and dispatched")
        found = [created["parameters"] for created in await runs_of(prefect, run)]
    finally:
        routers.end()
    assert Counter(row for one in found for row in one.get("rows", [])) == Counter(range(90))
    assert all(1 <= len(one["rows"]) <= 7 for one in found if "rows" in one)
    assert sorted(one["pair"] for one in found if "pair" in one) == sorted([f"left{n}", f"right{n}"] for n in range(20))


async def _routed(routing: Routing, count: int) -> bool:
    depth = await routing.journal.depth()
    return depth.entries == count and depth.unread == 0 and depth.pending == 0
