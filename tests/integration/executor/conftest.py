"""An executor of the tests' own, on the session's servers, with flows in a project of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from config.runs import ExecutorSettings
from config.settings import CHECKOUT, LogSettings, RedisSettings
from events.errors import TransientError
from services.executor.executor import Executor
from services.executor.pool.process_template import ProcessTemplate
from services.prefect_api.client import PrefectApi, connect
from services.prefect_api.deployments import register
from services.prefect_api.run_calls import read_logs
from services.store.connection import AsyncRedis
from tests.support.waiting import PATIENCE_SECONDS, eventually
from tests.support.warm import FreshProcess, ModuleProcess, start_module

TEMPLATE = """
import gc, socket, sys
from services.executor.pool import process_template

link = socket.socket(fileno=int(sys.argv[1]))
process_template.import_all()
gc.freeze()
link.sendall(b"!")
process_template._serve(link)
"""

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass
class Bench:
    """A project folder, an executor on it, and the run of a flow from its source to its end."""

    api: PrefectApi
    folder: Path
    redis_url: str
    home: Path
    process_template: ProcessTemplate | None = None
    name: str = field(default_factory=lambda: f"test-{uuid4().hex[:8]}")
    executors: list[tuple[Executor, asyncio.Task[None]]] = field(default_factory=list)

    async def start(
        self,
        *,
        folders: Sequence[str] = (),
        run: Callable[[Executor], Coroutine[Any, Any, None]] = Executor.run,
        **settings: Any,
    ) -> Executor:
        """An executor that takes only the deployments pinned to this bench; ``folders`` are the project's watches."""
        options = {
            "name": self.name,
            "slots": 2,
            "poll_seconds": 1.0,
            "lost_seconds": 5.0,
            "recheck_seconds": 0.3,
            "deployments": ("*",),
            **settings,
        }
        executor = Executor(
            settings=ExecutorSettings(**options),
            prefect=self.api,
            redis_url=self.redis_url,
            redis_settings=RedisSettings(),
            log_settings=LogSettings(level="warning"),
            home=self.home,
            folders=folders,
            process_template=self.process_template,
        )
        task = asyncio.create_task(run(executor))
        self.executors.append((executor, task))

        async def ready() -> bool:
            if task.done():
                task.result()
            return bool(executor.status()["ready"])

        await eventually(ready, what="the executor to be ready")
        return executor

    async def stop(self) -> None:
        """End every executor, as the role's process does."""
        for _, task in self.executors:
            task.cancel()
        for _, task in self.executors:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.executors.clear()

    def write(self, file: str, source: str) -> Path:
        """A file of the project."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return path

    async def deploy(self, source: str, *, file: str | None = None, flow: str = "main", **body: Any) -> str:
        """Write a flow file whose flow is the function ``flow``, and register its deployment; answers its id."""
        file = file or f"flow_{uuid4().hex[:8]}.py"
        self.write(file, source)
        variables = {"sluice_executor": self.name, **body.pop("job_variables", {})}
        name = body.pop("flow_name", f"{self.name}-{Path(file).stem}")
        fields = {
            "name": "default",
            "path": str(self.folder),
            "entrypoint": f"{file}:{flow}",
            "job_variables": variables,
            "enforce_parameter_schema": False,
            **body,
        }

        async def registered() -> str:
            try:
                return await register(self.api, flow=name, body=fields)
            except TransientError:  # its database was locked by the runs of other tests
                return ""

        return await eventually(registered, what="the deployment to be registered")

    async def create(self, deployment: str, **body: Any) -> str:
        """Ask for a run, as the UI's quick run does; answers its id."""
        run = await self.api.request("POST", f"/deployments/{deployment}/create_flow_run", json=body)
        return str(run["id"])

    async def read(self, run_id: str) -> dict[str, Any]:
        """The run as it is."""
        return await self.api.request("GET", f"/flow_runs/{run_id}")

    async def reach(self, run_id: str, *states: str, within_seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """The run once it is in one of these state types (or, without any, at its end)."""

        async def there() -> dict[str, Any] | None:
            run = await self.read(run_id)
            return run if run["state_type"] in (states or FINAL) else None

        return await eventually(there, within_seconds=within_seconds, what=f"the run to be {states or 'at its end'}")

    async def run(
        self, deployment: str, *, within_seconds: float = PATIENCE_SECONDS, **parameters: Any
    ) -> dict[str, Any]:
        """A run to its end."""
        run_id = await self.create(deployment, parameters=parameters)
        return await self.reach(run_id, within_seconds=within_seconds)

    async def states(self, run_id: str) -> list[str]:
        """The names of the states that the run went through; ``Late`` only says that the machine was busy."""
        found = await self.api.request("GET", "/flow_run_states/", params={"flow_run_id": run_id})
        names = [state["name"] for state in sorted(found, key=lambda state: state["timestamp"])]
        return [name for name in names if name != "Late"]

    async def all_logs(self, run_id: str) -> list[str]:
        """The run's lines of log in order, once its last one is there."""

        async def complete() -> list[str]:
            logs = await self.logs(run_id)
            return logs if any(line.startswith("Finished in state") for line in logs) else []

        return await eventually(complete, what="the run's last line of log")

    async def logs(self, run_id: str) -> list[str]:
        """The run's lines of log in order."""
        return [line["message"] for line in await read_logs(self.api, run_id, limit=10_000)]


def start_elsewhere(
    bench: Bench, *, url: str | None = None, fresh: bool = False, **settings: Any
) -> ModuleProcess | FreshProcess:
    """An executor in a process of its own, as on another machine; ``url``: how it reaches Prefect.

    A ``fresh`` one is an interpreter of its own, with the import path of one.
    """
    options = {
        "name": bench.name,
        "slots": 1,
        "poll_seconds": 1.0,
        "lost_seconds": 5.0,
        "deployments": ["*"],
        **settings,
    }
    words = ("tests.integration.executor.role", json.dumps(options), bench.redis_url, str(bench.home))
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PREFECT_API_URL": url or bench.api.url}
    if fresh:
        return FreshProcess([sys.executable, "-m", *words], env=environ, cwd=CHECKOUT)
    return start_module(*words, env=environ)


@pytest.fixture(scope="session")
def process_template() -> Iterator[ProcessTemplate | None]:
    """What the executors' fork servers are forked from, as in the role: a fresh one would import Prefect for each test.

    It is a process of its own, because pytest has threads.
    """
    if sys.platform != "linux":
        yield None
        return
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-c", TEMPLATE, str(theirs.fileno())]
        process = subprocess.Popen(command, cwd=CHECKOUT, pass_fds=[theirs.fileno()], start_new_session=True)
    assert ours.recv(1), "it has imported everything"
    ours.setblocking(False)
    yield ProcessTemplate(ours, process.pid)
    process.kill()
    process.wait()
    ours.close()


@pytest_asyncio.fixture
async def bench(
    prefect_url: str,
    redis: AsyncRedis,
    valkey_url: str,
    tmp_path: Path,
    process_template: ProcessTemplate | None,
) -> AsyncIterator[Bench]:
    folder = tmp_path / "project"
    folder.mkdir()
    async with connect() as api:
        bench = Bench(
            api=api,
            folder=folder,
            redis_url=valkey_url,
            home=tmp_path / "home",
            process_template=process_template,
        )
        yield bench
        await bench.stop()
