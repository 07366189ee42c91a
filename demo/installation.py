"""A `sluice up` of one's own on a temporary home and free ports, driven from outside as a user would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import redis

CHECKOUT = Path(__file__).resolve().parent.parent
STEP_SECONDS = 60.0

T = TypeVar("T")


class Failed(Exception):
    """A step of the story did not happen."""


class Installation:
    """`sluice up` as a process; everything is asked of the Prefect API, Redis and the file system, not of Sluice."""

    def __init__(
        self,
        home: Path,
        *,
        env: Mapping[str, str] | None = None,
        config: Path | None = None,
        output: Path | None = None,
    ) -> None:
        self.home = home
        self.output = output or home.with_name(home.name + ".log")
        self._config = config
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PREFECT_"))}
        ports = {f"SLUICE_PORTS__{name}": "0" for name in ("PREFECT", "REDIS", "API")}
        self.env = {**kept, **ports, "SLUICE_HOME": str(home), **(env or {})}
        if config is not None:
            self.env["SLUICE_CONFIG"] = str(config)
        self._stack = ExitStack()
        self.status: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and return once it says that it is ready, and `sluice status` does too."""
        self._said = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.cli", "up"],
                cwd=CHECKOUT,
                env=self.env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.until(self._says_ready, "the service is ready", within_seconds=300)
            self.status = self.until(self._ready, "its status is ready", pause_seconds=0.3)
        except BaseException:
            self.stop()
            raise
        self.access: dict[str, str | None] = json.loads(self.sluice("env", "--json").stdout)
        auth = self.access["PREFECT_API_AUTH_STRING"]
        self.prefect = httpx.Client(
            base_url=self.status["prefect_api"], auth=tuple(auth.split(":", 1)) if auth else None, timeout=60
        )
        self.redis = redis.Redis.from_url(self.access["SLUICE_REDIS_URL"] or "", decode_responses=True)
        self._stack.callback(self.prefect.close)
        self._stack.callback(self.redis.close)

    def stop(self) -> float:
        """Ctrl-C; answers how long the end took, in seconds. Raises `Failed` when it took over 15."""
        started = time.monotonic()
        self._stack.close()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGINT)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired as error:
                shown = "\n".join(self.output.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
                os.kill(self.process.pid, signal.SIGKILL)
                self.process.wait()
                raise Failed(f"the service did not stop within 15 s; its last lines:\n{shown}") from error
        return time.monotonic() - started

    def until(
        self,
        probe: Callable[[], T | None],
        what: str,
        *,
        within_seconds: float = STEP_SECONDS,
        pause_seconds: float = 0.01,
    ) -> T:
        """The first answer of ``probe`` that is true; raises `Failed` naming ``what`` when none comes."""
        deadline = time.monotonic() + within_seconds
        while True:
            asked = time.monotonic()
            answer = probe()
            if answer:
                return answer
            if self.process.poll() is not None:
                raise Failed(f"{what}: the service ended with code {self.process.returncode}; {self.tail()}")
            if time.monotonic() > deadline:
                raise Failed(f"{what}: did not happen within {within_seconds:.0f} s; {self.tail()}")
            # As long a pause as the answer took: what is waited for needs the processor, too.
            time.sleep(max(pause_seconds, time.monotonic() - asked))

    def sluice(
        self, *arguments: str, check: bool = True, within_seconds: float = STEP_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """One command of the CLI against this installation."""
        return subprocess.run(  # noqa: S603 - the command is ours
            [sys.executable, "-m", "services.cli", *arguments],
            cwd=CHECKOUT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=within_seconds,
            check=check,
        )

    def runs(self, flow: str, **where: Any) -> list[dict[str, Any]]:
        """The flow runs of ``flow`` as the Prefect API has them."""
        body = {"flows": {"name": {"any_": [flow]}}, "flow_runs": where or None, "sort": "EXPECTED_START_TIME_DESC"}
        return self._post("/flow_runs/filter", body)

    def artifacts(self, run_id: str) -> list[dict[str, Any]]:
        """The artifacts of a run."""
        return self._post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})

    def tail(self) -> str:
        """The end of the service's output."""
        lines = self.output.read_text(encoding="utf-8", errors="replace").splitlines()[-25:]
        return f"the end of {self.output}:\n" + "\n".join(f"    {line}" for line in lines)

    def _post(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        response = self.prefect.post(path, json=body)
        response.raise_for_status()
        found: list[dict[str, Any]] = response.json()
        return found

    def _says_ready(self) -> bool:
        with self.output.open("rb") as output:
            output.seek(self._said)
            return b"Sluice is ready." in output.read()

    def _ready(self) -> dict[str, Any] | None:
        answer = self.sluice("status", "--json", check=False)
        try:
            status: dict[str, Any] = json.loads(answer.stdout)
        except ValueError:
            return None
        return status if status["ready"] else None
