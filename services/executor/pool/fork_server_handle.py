"""The role's handle of a fork server: one generation of slots, replaced when the libraries change."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from services.common.project_imports import CHECKOUT
from services.executor.messages import Assignment, FlowSource, ProcessMessage
from services.executor.pipes import to_line
from services.executor.pool.process_template import ForkedProcess, ProcessTemplate
from services.prefect_api.deployments import Deployment
from services.store.runs.registered_files import RegisteredFile
from sluice.protocol import CONTRACTS_VARIABLE, FOLDERS_VARIABLE

PASSED_ON: Final = frozenset(
    {
        "SLUICE_HOME",
        "SLUICE_LOG__FORMAT",
        "SLUICE_DATABASE_URL",
        "SLUICE_MASKING_SECRET",
        "SLUICE_ENV",
        "SLUICE_REDIS_URL",
        "SLUICE_CONFIG",
    }
)
"""The settings of Sluice that flows may read; tokens and the like are not among them."""


class ForkServerHandle:
    """The process of one fork server; `say` sends it messages once it has connected."""

    def __init__(self, number: int, process: asyncio.subprocess.Process | ForkedProcess) -> None:
        self.number = number
        self.process = process
        self.writer: asyncio.StreamWriter | None = None
        self.retired = False
        self.started = time.monotonic()
        self.libraries: frozenset[str] = frozenset()
        self.finalizing: set[str] = set()
        """The runs that the fork server was sent to finalize and has not reported on."""

    @classmethod
    async def start(cls, assignment: Assignment, *, process_template: ProcessTemplate | None) -> ForkServerHandle:
        """Start the process, which connects to the socket that the assignment names."""
        if process_template is not None:
            forked = await process_template.start(assignment)
            if forked is not None:
                return cls(assignment.generation, forked)
        environment = {**os.environ, "PREFECT_API_URL": assignment.environment["PREFECT_API_URL"]}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [CHECKOUT, environment.get("PYTHONPATH")]))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.executor.pool.fork_server",
            stdin=asyncio.subprocess.PIPE,
            cwd=CHECKOUT,
            env=environment,
        )
        if process.stdin is not None:
            process.stdin.write(to_line(assignment))
            with contextlib.suppress(OSError):
                await process.stdin.drain()
            process.stdin.close()
        return cls(assignment.generation, process)

    def say(self, message: ProcessMessage) -> None:
        """Send a message; does nothing when the fork server is not connected."""
        say(self.writer, message)

    async def end(self, *, within_seconds: float) -> None:
        """Wait for the process to end as requested, then SIGKILL it; its slots end when the role's process does."""
        try:
            await asyncio.wait_for(self.process.wait(), within_seconds)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


def say(writer: asyncio.StreamWriter | None, message: ProcessMessage) -> None:
    """Send one message, if there is a connection."""
    if writer is not None and not writer.is_closing():
        writer.write(to_line(message))


def environment_of_flows(
    environ: Mapping[str, str], *, prefect_api_url: str, folders: Sequence[str], contracts: Sequence[str] = ()
) -> dict[str, str]:
    """Return the environment of a run process.

    ``folders``: where it may read files; ``contracts``: the files and folders with the project's contracts.
    """
    kept = {
        name: value for name, value in environ.items() if not name.upper().startswith("SLUICE_") or name in PASSED_ON
    }
    python_path = [
        entry for entry in kept.pop("PYTHONPATH", "").split(os.pathsep) if entry and os.path.realpath(entry) != CHECKOUT
    ]
    if python_path:
        kept["PYTHONPATH"] = os.pathsep.join(python_path)
    told = {FOLDERS_VARIABLE: json.dumps(folders), CONTRACTS_VARIABLE: json.dumps(contracts)}
    return {**kept, "PREFECT_API_URL": prefect_api_url, **told}


def sources_of(deployments: Iterable[Deployment]) -> set[FlowSource]:
    """Return the flows whose code is on this machine."""
    return {
        FlowSource(os.path.realpath(deployment.path or "."), deployment.entrypoint)
        for deployment in deployments
        if deployment.entrypoint and not deployment.remote
    }


def registered_here(files: Iterable[RegisteredFile]) -> set[FlowSource]:
    """Return the flows of registered files that this machine has."""
    sources = (FlowSource(os.path.realpath(file.path), file.entrypoint) for file in files)
    return {source for source in sources if os.path.isfile(source.file)}  # noqa: PTH113 - a text
