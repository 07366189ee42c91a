"""Runs of deployments in processes of their own, which a test starts and kills."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Any

from prefect import get_client

from services.prefect_api.run_view import RunView
from tests.support import waiting_flows as flows
from tests.support.waiting import eventually
from tests.support.warm import ModuleProcess, start_module

if TYPE_CHECKING:
    from tests.integration.signals.conftest import Desk


class Deployed:
    """A run of a deployment, whose processes the test starts and kills."""

    def __init__(self, submission: Desk, checkout: Path, path: Path, *, key: str) -> None:
        self.submission = submission
        self.key = key
        self.run_id = ""
        self._checkout = checkout
        self._path = path
        self._processes: list[ModuleProcess] = []

    async def create(self, flow: Any = flows.waiting_once, **options: Any) -> None:
        parameters = {"path": str(self._path), "key": self.key, **({"options": options} if options else {})}
        async with get_client() as client:
            flow_id = await client.create_flow(flow)
            entrypoint = f"tests/support/waiting_flows.py:{flow.fn.__name__}"
            deployment = await client.create_deployment(flow_id, "test", entrypoint=entrypoint)
            created = await client.create_flow_run_from_deployment(deployment, parameters=parameters)
        self.run_id = str(created.id)

    async def start(self) -> ModuleProcess:
        environ = {**os.environ, "PREFECT__FLOW_RUN_ID": self.run_id}
        process = start_module("prefect.engine", cwd=self._checkout, env=environ, stdout=DEVNULL, stderr=DEVNULL)
        self._processes.append(process)
        return process

    async def kill(self) -> None:
        self._processes[-1].kill()
        await self._processes[-1].ended()

    def stop(self) -> None:
        """SIGSTOP: the process is there, and hears nothing."""
        self._processes[-1].send_signal(signal.SIGSTOP)

    async def end(self) -> None:
        for process in self._processes:
            process.kill()
            await process.ended()

    async def waits(self, *, other_than: str = "", run_id: str = "") -> RunView:
        """The run once it is in a wait, another one than that state."""

        async def probe() -> RunView | None:
            run = await self.submission.runs.read(run_id or self.run_id)
            return run if run.waiting and run.state_id != other_than else None

        found = await eventually(probe, what="the run waits")
        assert found is not None
        return found

    async def child(self) -> RunView:
        """The run that waits for the key, once there is one."""
        (found,) = await eventually(
            lambda: self.submission.runs.waiting_for([self.key]), what="a run waits for the key"
        )
        return found

    async def ends(self) -> str:
        async def probe() -> str | None:
            run = await self.submission.runs.read(self.run_id)
            return run.state_name if run.final else None

        return str(await eventually(probe, what="the run ends"))

    async def set_state(self, kind: str, name: str, *, force: bool = False, **fields: Any) -> None:
        body = {"state": {"type": kind, "name": name, **fields}, "force": force}
        answer = await self.submission.api.request("POST", f"/flow_runs/{self.run_id}/set_state", json=body)
        assert answer["status"] == "ACCEPT", answer

    async def suspended(self, run: RunView, **changes: str) -> None:
        """What an executor does with a paused run when it is stopped; ``changes`` are made to its keyset."""
        await self.kill()
        details = {"pause_key": run.pause_key, "pause_reschedule": True, "run_input_keyset": {**run.keyset, **changes}}
        await self.set_state("PAUSED", "Suspended", force=True, state_details=details)

    async def resuming(self) -> None:
        async def probe() -> bool:
            return (await self.submission.runs.read(self.run_id)).state_type == "SCHEDULED"

        await eventually(probe, what="the run is to start again")

    @property
    def answers(self) -> list[str]:
        return self._path.read_text().splitlines() if self._path.exists() else []
