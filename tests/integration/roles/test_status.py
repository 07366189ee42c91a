"""A Redis that takes connections and answers nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from config.settings import Settings
from services.operations.status import read_status
from tests.support.valkeys import own_valkey

WITHIN_SECONDS = 20
"""Four times its limit; the time limits of single commands and their retries come to more than a minute."""


async def test_the_status_gives_up_on_it(tmp_path: Path) -> None:
    with own_valkey(tmp_path / "valkey") as valkey:
        settings = Settings(home=tmp_path / "home", redis_url=valkey.url)
        answering, _ = await read_status(settings)
        assert not [one for one in answering.reasons if one.code == "redis-unreachable"]
        valkey.hang()
        async with asyncio.timeout(WITHIN_SECONDS):
            readiness, told = await read_status(settings)
    assert not readiness.ready
    (why,) = [one.message for one in readiness.reasons if one.code == "redis-unreachable"]
    assert why == "Redis has not answered within 5 s"
    assert (told["backlog"], told["project"]) == (None, None)
