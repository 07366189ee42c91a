"""Commands, called as on a terminal."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from typer.testing import CliRunner, Result

from services.cli import dead
from services.prefect_api.client import PrefectApi
from tests.integration.delivery.world import World, runs_of


async def call(app: Any, *arguments: str, stdin: str | None = None) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, [str(argument) for argument in arguments], input=stdin)


async def read_json(app: Any, *arguments: str) -> Any:
    result = await call(app, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def letters(count: int) -> Any:
    rows = await read_json(dead.app, "list")
    return rows if len(rows) == count else None


async def emptied(world: World) -> bool:
    return not await world.queues.names() and (await world.journal.depth()).pending == 0


async def have_runs(prefect: PrefectApi, name: str, count: int) -> bool:
    return len(await runs_of(prefect, name)) == count
