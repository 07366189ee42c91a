"""What the embedded server changes in Prefect's and docket's own parts, which a new version may move."""

from __future__ import annotations

import re
import uuid
from importlib.util import find_spec
from pathlib import Path

import pytest

from services.local import prefect_server


async def test_the_worker_of_the_server_runs_its_tasks_and_asks_for_no_cancellations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from docket import Docket, Worker  # here, as the server's modules take long and would be imported for every test
    from prefect.server.api import background_workers

    monkeypatch.setattr(background_workers, "Worker", Worker)
    prefect_server._look_seldom()
    seldom = background_workers.Worker  # type: ignore[attr-defined]
    asked: list[Worker] = []

    async def ask(worker: Worker) -> None:
        asked.append(worker)

    assert callable(Worker._cancellation_listener), "docket has moved what is overridden"
    monkeypatch.setattr(Worker, "_cancellation_listener", ask)
    done: list[int] = []

    async def task(number: int) -> None:
        done.append(number)

    async with Docket(name=uuid.uuid4().hex, url=f"memory://{uuid.uuid4().hex}") as docket:
        docket.register(task)
        await docket.add(task)(7)
        async with seldom(docket) as worker:
            await worker.run_until_finished()
    assert (done, asked) == ([7], [])


def test_prefect_cancels_none_of_its_own_services() -> None:
    spec = find_spec("prefect.server")
    assert spec is not None
    assert spec.origin
    sources = Path(spec.origin).parent.rglob("*.py")
    assert not [path for path in sources if re.search(r"docket\.cancel\(", path.read_text())]
