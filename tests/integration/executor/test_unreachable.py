"""A run whose process cannot reach Prefect before the flow begins: nothing of it has happened, so it starts again."""

from collections.abc import Iterator

import pytest
from typing_extensions import override

from tests.integration.executor.conftest import Bench, start_elsewhere
from tests.support.proxy import Proxy, in_front_of
from tests.support.waiting import eventually

FLOW = """
from pathlib import Path
from prefect import flow

@flow
def main():
    with Path(__file__).with_suffix(".began").open("a") as file:
        file.write("began\\n")
"""
FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class AfterClaim(list[tuple[bytes, bytes]]):
    """Answers that are given once the proxy has heard the claim: the intake asks for the same before."""

    def __init__(self, proxy: Proxy, claim: bytes, answers: list[tuple[bytes, bytes]]) -> None:
        super().__init__(answers)
        self._proxy = proxy
        self._claim = claim

    @override
    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        claimed = any(heard.startswith(self._claim) for heard in self._proxy.heard)
        return super().__iter__() if claimed else iter(())


@pytest.mark.slow
async def test_a_run_that_prefect_fails_before_the_flow_begins_starts_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_CLIENT_RETRY_EXTRA_CODES", "")
    deployment = await bench.deploy(FLOW, file="flow_unreachable.py")
    async with in_front_of(bench.api.url) as (proxy, url):
        executor = start_elsewhere(bench, url=url)
        try:
            run_id = await bench.create(deployment)
            claims = f"POST /api/flow_runs/{run_id}/set_state".encode()
            asks = f"GET /api/deployments/{deployment}".encode()
            proxy.instead = AfterClaim(proxy, claims, [(asks, FAILED)])
            run = await bench.reach(run_id)
            assert not proxy.instead, "the run's process has met the failure"
        finally:
            executor.terminate()
            await eventually(lambda: _ended(executor), what="the end of the executor")
    assert run["state_type"] == "COMPLETED", run["state"]
    assert "AwaitingRetry" in await bench.states(run_id)
    assert (bench.folder / "flow_unreachable.began").read_text() == "began\n"


async def _ended(executor) -> bool:
    return executor.poll() is not None
