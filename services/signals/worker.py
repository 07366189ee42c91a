"""The resumer's RQ workers: take jobs in threads of their own and run them on the role's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from events.errors import Backpressure, TransientError
from services.common.backoff import Backoff
from services.job_queues.queues import rq_translated
from services.job_queues.rq_keys import RESUME
from services.job_queues.workers import ThreadWorker, simple_worker
from services.signals.submission import JOB_SECONDS
from services.store.connection import SyncRedis

_AGAIN_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 3.0
_WAKE_SECONDS: Final = 0.1


class SignalWorker:
    """Takes signals off the resume queue, ``at_once`` of them concurrently; several processes may serve the queue.

    The threads only block: all the work is done by ``apply`` on the loop that called `run`, so that its connections to
    Prefect and Redis stay open between jobs. ``connect`` opens a blocking client for RQ. The order of the signals for
    one run does not depend on the order of the jobs: each delivery to a run applies all its open signals in order.
    """

    def __init__(
        self, *, apply: Callable[[str], Awaitable[None]], connect: Callable[[], SyncRedis], instance: str, at_once: int
    ) -> None:
        self._apply = apply
        self._connect = connect
        self._names = [f"resumer-{instance}-{number}" for number in range(1, at_once + 1)]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._working: set[str] = set()
        self._backoff = Backoff("take signals off their queue", first_seconds=_AGAIN_SECONDS, longest_seconds=2.0)
        self._done = 0

    def status(self) -> Mapping[str, Any]:
        """``ready`` while a thread reads the queue."""
        trouble = {"degraded": self._backoff.trouble} if self._backoff.trouble else {}
        return {"ready": bool(self._working), "queue": RESUME, "signals": self._done, **trouble}

    async def run(self) -> None:
        """Work until cancelled; signals under way are then finished, if that takes less than 3 s."""
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            for name in self._names:
                tasks.create_task(self._work_again_and_again(name))

    async def _work_again_and_again(self, name: str) -> None:
        while True:
            error = await self._work(name)
            if error is None:
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                await self._backoff.after(error)

    async def _work(self, name: str) -> Exception | None:
        """Run one worker until it ends; return the error that ended it, if any."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        failed: list[Exception] = []
        redis = self._connect()
        workers: list[ThreadWorker] = []

        def begun() -> None:
            loop.call_soon_threadsafe(self._note_working, name)

        def work() -> None:
            try:
                with rq_translated():
                    # A new name each time: the former one may still be registered, and RQ requires unique names.
                    unique = f"{name}-{secrets.token_hex(3)}"
                    worker = simple_worker([RESUME], redis, unique, begun=begun, owner=self)
                    workers.append(worker)
                    worker.work(logging_level="WARNING")
            except (TransientError, Backpressure) as error:
                failed.append(error)
            finally:
                redis.close()
                with contextlib.suppress(RuntimeError):  # nobody waited longer, and the loop is closed
                    loop.call_soon_threadsafe(ended.set)

        # A daemon: while Redis is away, RQ sleeps longer than a process has to stop.
        threading.Thread(target=work, name=name, daemon=True).start()
        try:
            await ended.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await _stop(workers, ended)
            raise
        finally:
            self._working.discard(name)
        return failed[0] if failed else None

    def _note_working(self, name: str) -> None:
        self._working.add(name)
        self._backoff.worked()

    def apply(self, signal_id: str) -> None:
        """Apply the signal; called in the worker's thread."""
        if self._loop is None:
            raise RuntimeError("the signal worker does not run")
        asyncio.run_coroutine_threadsafe(self._once(signal_id), self._loop).result(JOB_SECONDS)

    async def _once(self, signal_id: str) -> None:
        await self._apply(signal_id)
        self._done += 1


async def _stop(workers: Sequence[ThreadWorker], ended: asyncio.Event) -> None:
    """Return when the workers have ended; one that is about to wait for a job when it is woken is woken again."""
    for worker in workers:
        worker.stop()
    while not ended.is_set():
        for worker in workers:
            await asyncio.to_thread(worker.wake)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), _WAKE_SECONDS)
