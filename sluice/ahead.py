"""An answer ahead of the end: the flow goes on with it while the wait that got it still tidies up."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar
from uuid import UUID

T = TypeVar("T")

_END_SECONDS: Final = 1.0
_TIDY_SECONDS: Final = 12.0
"""Longer than two calls to Prefect take at most: a wait whose thread was killed must not hold up the next one."""

_WAKE_SECONDS: Final = 0.5
"""How often a thread that waits for an answer can be interrupted, where Prefect ends a task or flow by its time-out."""

_ends: dict[UUID, concurrent.futures.Future[None]] = {}
"""When the last wait of a run has tidied up: its next one begins behind that, whichever thread or loop it is in."""


async def answer_of(run_id: UUID, wait: Callable[[asyncio.Future[T]], Coroutine[Any, Any, T]]) -> T:
    """What ``wait`` puts into the future that it is given, at once; or what it returns or raises without doing so.

    It goes on by itself afterwards, on the same loop; the run's next wait begins behind it.
    """
    await ended(run_id)
    answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(wait(answer))
    try:
        await asyncio.wait({answer, waiting}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        waiting.cancel()
        await asyncio.wait({waiting}, timeout=_END_SECONDS)
        raise
    if not answer.done():
        return await waiting
    end: concurrent.futures.Future[None] = concurrent.futures.Future()
    _ends[run_id] = end

    def over(task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # nobody asks for what went wrong behind the answer
        if _ends.get(run_id) is end:
            del _ends[run_id]
        end.set_result(None)

    waiting.add_done_callback(over)
    return answer.result()


async def ended(run_id: UUID) -> None:
    """Return once the run's last wait has tidied up, or has had time enough for it."""
    end = _ends.get(run_id)
    if end is not None:
        await asyncio.wait({asyncio.wrap_future(end)}, timeout=_TIDY_SECONDS)


def in_thread(run_id: UUID | None, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine on a loop in a thread of its own, which lives until the run's wait has tidied up.

    Answers what the coroutine answers, or raises what it raises, at once; an interruption of the caller cancels it.
    """
    answer: concurrent.futures.Future[T] = concurrent.futures.Future()
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []
    given_up = threading.Event()

    async def work() -> None:
        task = asyncio.current_task()
        if task is not None:
            begun.append((asyncio.get_running_loop(), task))
        if given_up.is_set():
            return
        try:
            answer.set_result(await start())
        except BaseException as error:  # noqa: BLE001 - Prefect's Pause is one, and it belongs to the caller
            answer.set_exception(error)
        if run_id is not None:
            await ended(run_id)

    context = contextvars.copy_context()
    # No daemon: a process that ends with the answer lets the wait tidy up.
    thread = threading.Thread(target=lambda: context.run(asyncio.run, work()), name="sluice-wait")
    try:
        thread.start()
        while not concurrent.futures.wait({answer}, timeout=_WAKE_SECONDS).done:
            pass
    except BaseException:
        given_up.set()
        for loop, task in begun:
            with contextlib.suppress(RuntimeError):  # its loop is closed by now
                loop.call_soon_threadsafe(task.cancel)
        raise
    return answer.result()
