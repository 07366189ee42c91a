"""A router process for tests that kill it.

``python -m tests.integration.delivery.process REDIS_URL DEPLOYMENT [RULE]``; the rule is JSON over the usual one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from config.runs import DispatcherSettings
from config.settings import JournalSettings, RedisSettings
from services.prefect_api.client import connect as connect_prefect
from services.store.connection import connect
from tests.integration.delivery.world import RULE, World


async def main(redis_url: str, deployment: str, rule: str = "{}") -> None:
    redis = connect(redis_url, RedisSettings())
    async with connect_prefect() as prefect:
        world = World(
            redis,
            prefect,
            journal_settings=JournalSettings(claim_idle_seconds=1.0, batch=20),
            dispatcher_settings=DispatcherSettings(batch=20),
            consumer=f"process-{os.getpid()}",
        )
        world.use({**RULE, "run": deployment, **json.loads(rule)})
        async with world.running():
            print("running", flush=True)  # noqa: T201 - the test waits for it
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
