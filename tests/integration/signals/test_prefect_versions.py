"""A Prefect server of another version than the client's: waits are answered. ``make test-prefect`` tests more of it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from config.settings import CHECKOUT
from services.prefect_api.client import connect
from services.store.connection import AsyncRedis
from tests.integration.signals.conftest import desk, new_key, resumer_for
from tests.support.prefects import own_prefect
from tests.support.waiting import eventually

OTHER = max(CHECKOUT.glob(".venv-prefect-*/bin/python"), default=Path("none"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not OTHER.exists(), reason="no other version of Prefect is here; `make test` installs one"),
]

FLOW = """
import sys
from tests.support.waiting_flows import Approval, approving
print(approving("here", sys.argv[1], input=Approval))
"""


@pytest.fixture(scope="module")
def other_prefect(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> Iterator[str]:
    """On a database that the session's server has made: it is migrated, as in an upgrade."""
    with own_prefect(tmp_path_factory.mktemp("other"), python=str(OTHER)) as url:
        yield url


@pytest.mark.parametrize("python", [sys.executable, str(OTHER)], ids=["our-client", "other-client"])
async def test_a_wait_has_its_form_and_is_answered(
    python: str, other_prefect: str, redis: AsyncRedis, valkey_url: str, checkout: Path
) -> None:
    key = new_key()
    with temporary_settings(updates={PREFECT_API_URL: other_prefect}):
        async with (
            connect(other_prefect) as api,
            desk(api, redis, valkey_url) as resumer,
            resumer_for(resumer, redis, valkey_url),
        ):
            process = await asyncio.create_subprocess_exec(
                python, "-c", FLOW, key, cwd=checkout, env={**os.environ, "PREFECT_API_URL": other_prefect},
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                await eventually(lambda: resumer.runs.waiting_for([key]), what="the run waits")
                unfit = await resumer.ask(key=key, input={"approved": "perhaps"})
                assert (unfit.status, "approved" in unfit.reason) == ("rejected", True)
                assert (await resumer.ask(key=key, input={"approved": True})).status == "applied"
                answered, _ = await asyncio.wait_for(process.communicate(), 60)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    assert answered.decode().strip() == "approved=True by='nobody'"
