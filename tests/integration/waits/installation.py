"""A resumer and an executor as processes that can be killed, on the session's servers, and calls that Prefect takes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
import psutil

from config.settings import RedisSettings, ResumerSettings
from events.errors import NotFound, Refused
from events.signal import signal_from_mapping
from events.untrusted_json import Limits
from services.listings.signals import row
from services.prefect_api.client import PrefectApi
from services.prefect_api.client import connect as connect_prefect
from services.prefect_api.deployments import register
from services.prefect_api.run_calls import cancel_run
from services.signals.submission import SignalSubmission
from services.store.connection import connect, connect_sync
from services.store.signals.signals import SignalStore
from tests.support.faults_roles import Role
from tests.support.waiting import wait_until

FLOW_FILE = Path(__file__).with_name("case_flow.py")
ON_LOST = ("crash", "restart")
_PATIENCE_SECONDS = 60.0


class Installation:
    """Shared by all examples. Synchronous, as hypothesis' rules are: the product's calls run on a loop of its own."""

    def __init__(self, *, directory: Path, prefect_url: str, valkey_url: str, slots: int) -> None:
        self.directory = directory
        self._redis_url = valkey_url
        self._loop = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._http = httpx.Client(base_url=prefect_url, timeout=30)
        name = f"waits-{uuid4().hex[:6]}"
        config = directory / "sluice.yaml"
        config.write_text("{}\n")
        self._env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLUICE_")},
            "SLUICE_HOME": str(directory / ".sluice"),
            "SLUICE_CONFIG": str(config),
            "SLUICE_REDIS_URL": valkey_url,
            "PREFECT_API_URL": prefect_url,
            "PREFECT_HOME": str(directory / "prefect-client"),
            "SLUICE_EXECUTOR__NAME": name,
            "SLUICE_EXECUTOR__SLOTS": str(slots),
            "SLUICE_EXECUTOR__DEPLOYMENTS": '["waits/*"]',
            "SLUICE_EXECUTOR__POLL_SECONDS": "1",
            "SLUICE_EXECUTOR__LOST_SECONDS": "5",
            "SLUICE_RESUMER__POLL_SECONDS": "1",
            "SLUICE_RESUMER__LEASE_SECONDS": "3",
            "SLUICE_RESUMER__CALL_SECONDS": "2",
        }
        (directory / ".sluice").mkdir()
        self._roles = {role: Role(role, 0, env=self._env, directory=directory) for role in ("executor", "resumer")}
        self._name = name
        self.deployments: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._loop.run(self._open())
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        for role in self._roles.values():
            role.stop()
        self._loop.run(self._stack.aclose())
        self._http.close()
        self._loop.close()

    async def _open(self) -> None:
        settings = RedisSettings()
        redis = connect(self._redis_url, settings)
        self._stack.push_async_callback(redis.aclose)
        blocking = connect_sync(self._redis_url, settings)
        self._stack.callback(blocking.close)
        self._store = SignalStore(redis, ResumerSettings())
        self._submission = SignalSubmission(store=self._store, rq_redis=blocking, limits=Limits())
        self._api: PrefectApi = await self._stack.enter_async_context(connect_prefect())
        shutil.copy(FLOW_FILE, self.directory / "case_flow.py")
        for on_lost in ON_LOST:
            body = {
                "name": on_lost,
                "path": str(self.directory),
                "entrypoint": "case_flow.py:main",
                "job_variables": {"sluice_executor": self._name, "sluice_on_lost": on_lost},
                "enforce_parameter_schema": False,
            }
            self.deployments[on_lost] = await register(self._api, flow="waits", body=body)

    # Roles

    def up(self) -> None:
        """Start what does not run; nothing waits until it is ready."""
        for role in self._roles.values():
            wait_until(lambda role=role: self._runs(role), what="the role's process")

    @staticmethod
    def _runs(role: Role) -> bool:
        role.keep_running(time.monotonic())
        return role.pid is not None

    def signal_role(self, name: str, number: signal.Signals, *, with_children: bool = False) -> None:
        """Send it, and return when the role's process has ended; `up` starts it again."""
        role = self._roles[name]
        pid = role.pid
        if pid is None:
            return
        (role.send_all if with_children else role.send)(number)
        wait_until(lambda: role.ended, what=f"the end of {name}")

    # Signals

    def send(self, **message: Any) -> None:
        """Hand a signal in; it is durable on return."""
        self._loop.run(self._submission.submit(signal_from_mapping(message), origin="test"))

    def signals(self, ids: list[str], runs: list[str]) -> list[dict[str, Any]]:
        """What `sluice signals list` tells of these signals and of all that had to do with the runs."""

        async def read() -> list[dict[str, Any]]:
            found = {record.signal.id: record for record in await self._store.get_many(ids)}
            for run in runs:
                found |= {record.signal.id: record for record in await self._store.of_run(run)}
            return [row(record) for record in found.values()]

        return self._loop.run(read())

    # Runs

    def create(self, on_lost: str, **parameters: Any) -> str:
        """A run as the UI's quick run makes it; its id."""
        found = self._asked("POST", f"/deployments/{self.deployments[on_lost]}/create_flow_run", parameters=parameters)
        return str(found["id"])

    def read(self, run: str) -> dict[str, Any] | None:
        """The run; None if it was deleted."""
        return self._asked("GET", f"/flow_runs/{run}")

    def states(self, run: str) -> list[str]:
        """The states that the run went through, in words."""
        found = self._asked("GET", f"/flow_run_states/?flow_run_id={run}") or []
        return [
            f"{state['timestamp']} {state['type']} {state['name']}: {state['message']}"
            for state in sorted(found, key=lambda state: state["timestamp"])
        ]

    def set_state(self, run: str, kind: str, *, force: bool, **fields: Any) -> bool:
        """Whether Prefect accepted it."""
        answer = self._asked("POST", f"/flow_runs/{run}/set_state", state={"type": kind, **fields}, force=force)
        return answer is not None and answer["status"] == "ACCEPT"

    def resume(self, run: str, value: dict[str, Any] | None) -> bool:
        """The Resume button; whether Prefect accepted it."""
        body = {} if value is None else {"run_input": value}
        answer = self._asked("POST", f"/flow_runs/{run}/resume", **body)
        return answer is not None and answer["status"] == "ACCEPT"

    def cancel(self, run: str) -> None:
        """As `sluice runs cancel` does."""
        try:
            self._loop.run(cancel_run(self._api, run, reason="the test cancels it"))
        except (NotFound, Refused):
            return  # it has ended

    def delete(self, run: str) -> None:
        self._asked("DELETE", f"/flow_runs/{run}")

    def _asked(self, method: str, path: str, **body: Any) -> Any:
        """Prefect's answer; None where it knows no such run. It is asked again while its database is locked."""

        def ask() -> httpx.Response | None:
            try:
                answer = self._http.request(method, path, json=body or None)
            except httpx.TransportError:
                return None
            # For a run that it does not know, /resume answers with an error of the server, too.
            if answer.is_server_error and not (path.endswith("/resume") and self.read(path.split("/")[2]) is None):
                return None
            return answer

        answer = wait_until(ask, within_seconds=_PATIENCE_SECONDS, what=f"an answer of Prefect to {path}")
        if answer.status_code in {404, 500, 503}:
            return None
        answer.raise_for_status()
        return answer.json() if answer.content else {}


def kill(pid: int) -> None:
    """SIGKILL to a process that a run or a slot is in, and return when it has gone."""
    try:
        process = psutil.Process(pid)
        process.kill()
        wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, what="its end")
    except psutil.NoSuchProcess:
        return


def slot_of(pid: int) -> int | None:
    """The slot that forked the run's process."""
    try:
        parent = psutil.Process(pid).ppid()
    except psutil.NoSuchProcess:
        return None
    return parent if parent > 1 else None


@contextmanager
def installation(directory: Path, *, prefect_url: str, valkey_url: str, slots: int) -> Iterator[Installation]:
    with Installation(directory=directory, prefect_url=prefect_url, valkey_url=valkey_url, slots=slots) as found:
        yield found
