"""A resumer that is killed: at a chosen step of one signal (`steps`), or at any time (`serve`).

``steps VALKEY_URL SIGNAL_ID…`` forks a resumer for each signal; the n-th is killed at the n-th step, before or after
one call of the store or of Prefect, or one request of such a call. Prints what each step was, and at last ``done``,
when a signal was applied before its step.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from config.logs import configure_logging
from config.settings import LogSettings, RedisSettings, ResumerSettings
from events.dead_letter import DeadLetter
from services.prefect_api.client import connect as connect_prefect
from services.prefect_api.waiting import WaitingRuns
from services.signals.applier import Applier
from services.signals.resumer import build_resumer
from services.store.connection import connect, connect_sync
from services.store.signals.signals import SignalStore
from services.store.signals.waits import Waits


class Mortal:
    """Calls ``inner``, and ``step`` before and after each call."""

    def __init__(self, inner: Any, step: Callable[[str], None]) -> None:
        self._inner = inner
        self._step = step

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name == "busy":
            return self._busy

        async def call(*args: Any, **options: Any) -> Any:
            what = f"{args[0]} {args[1].rpartition('/')[2]}" if name == "request" else name
            self._step(f"before {what}")
            answer = await method(*args, **options)
            self._step(f"after {what}")
            return answer

        return call

    @asynccontextmanager
    async def _busy(self, what: str) -> AsyncIterator[Any]:
        async with self._inner.busy(what) as busy:
            self._step("holding the lease")
            yield busy
            self._step("before giving the lease back")


async def apply(url: str, signal_id: str, last: int, tell: int) -> None:
    numbers = itertools.count(1)

    def step(name: str) -> None:
        if next(numbers) == last:
            os.write(tell, f"{name}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    settings = ResumerSettings(lease_seconds=6, call_seconds=3)
    redis = connect(url, RedisSettings())
    async with connect_prefect() as api:
        store: Any = Mortal(SignalStore(redis, settings), step)
        calls: Any = Mortal(api, step)
        runs: Any = Mortal(WaitingRuns(calls), step)
        await Applier(store=store, runs=runs, hints=Waits(redis), settings=settings).apply(signal_id)
    await redis.aclose()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def steps(url: str, signal_ids: list[str]) -> None:
    for last, signal_id in enumerate(signal_ids, 1):
        hear, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(hear)
            asyncio.run(apply(url, signal_id, last, tell))
            os._exit(0)
        os.close(tell)
        _, status = os.waitpid(child, 0)
        with os.fdopen(hear) as heard:
            say(heard.read().strip() if os.WIFSIGNALED(status) else "done")
        if not os.WIFSIGNALED(status):
            return


class Nowhere:
    async def add(self, letter: DeadLetter) -> None: ...
    async def signal(self, event_id: str, signal_id: str, outcome: str, *, rule: str | None = None) -> None: ...


async def serve(url: str, instance: str) -> None:
    redis = connect(url, RedisSettings())
    async with connect_prefect() as api:
        resumer = build_resumer(
            redis=redis,
            connect_rq=lambda: connect_sync(url, RedisSettings()),
            api=api,
            settings=ResumerSettings(lease_seconds=2, call_seconds=1.5, poll_seconds=2),
            dead=Nowhere(),
            history=Nowhere(),
            instance=instance,
        )
        async with asyncio.TaskGroup() as tasks:
            for part in resumer.parts().values():
                tasks.create_task(part.run())
            say("serving")


if __name__ == "__main__":
    configure_logging(LogSettings())  # to standard error
    if sys.argv[1] == "steps":
        steps(sys.argv[2], sys.argv[3:])
    else:
        asyncio.run(serve(sys.argv[2], sys.argv[3]))
