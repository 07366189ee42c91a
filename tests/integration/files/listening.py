"""Starting, asking and killing `tests.integration.files.process`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from services.store.connection import AsyncRedis
from tests.support.waiting import eventually
from tests.support.warm import ModuleProcess, start_module

CHECKOUT = Path(__file__).resolve().parents[3]


class Listening:
    """One listener process. ``wrapper`` is a command that the process is started through, ``user`` whose it becomes."""

    def __init__(
        self,
        redis: AsyncRedis,
        url: str,
        watches: dict[str, dict[str, Any]],
        settings: dict[str, Any],
        *,
        log: Path,
        kill_at: str | None = None,
        after: int = 0,
        wrapper: Sequence[str] = (),
        before: Callable[[], None] | None = None,
        user: int | None = None,
    ) -> None:
        self._redis = redis
        self.log = log
        spec = {"redis": url, "watches": watches, "settings": settings, "kill_at": kill_at, "after": after}
        spec |= {"user": user}
        module = "tests.integration.files.process"
        self.process: ModuleProcess | subprocess.Popen[bytes]
        with log.open("ab") as output:
            if not wrapper and before is None:
                self.process = start_module(module, json.dumps(spec), stdout=output, stderr=output)
                return
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, "-m", module, json.dumps(spec)],
                cwd=CHECKOUT,
                stdout=output,
                stderr=output,
                preexec_fn=before,  # noqa: PLW1509 - it makes system calls only
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.kill()
        self.process.wait()

    async def status(self, watch: str = "inbox") -> dict[str, Any]:
        """What the watch last said of itself; empty before it said anything."""
        raw = await self._redis.get(f"test:status:{self.process.pid}")
        return {} if raw is None else json.loads(raw)[watch]

    async def scanned(self, watch: str = "inbox") -> None:
        """Return once it has looked at everything."""

        async def done() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return bool((await self.status(watch)).get("last_full_scan"))

        await eventually(done, what="the first scan")

    async def killed(self) -> None:
        """Return once it has ended by SIGKILL."""

        async def ended() -> bool:
            return self.process.poll() is not None

        await eventually(ended, what="the end of the process")
        assert self.process.returncode == -signal.SIGKILL, self.log.read_text()
