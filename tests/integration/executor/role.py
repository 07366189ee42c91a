"""An executor alone: ``python -m tests.integration.executor.role SETTINGS-JSON VALKEY_URL HOME``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from config.runs import ExecutorSettings
from config.settings import LogSettings, RedisSettings
from services.executor.pool.process_template import ProcessTemplate


async def main(options: dict[str, object], redis_url: str, home: Path, template: ProcessTemplate | None) -> None:
    from services.executor.executor import Executor
    from services.prefect_api.client import connect

    async with connect() as api:
        executor = Executor(
            settings=ExecutorSettings(**options),
            prefect=api,
            redis_url=redis_url,
            redis_settings=RedisSettings(),
            log_settings=LogSettings(),
            home=home,
            process_template=template,
        )
        await executor.run()


if __name__ == "__main__":
    forked = ProcessTemplate.fork()
    assert forked is not None or sys.platform != "linux"
    asyncio.run(main(json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), forked))
    if forked is not None:
        forked.close()
