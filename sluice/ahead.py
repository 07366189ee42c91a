"""Early answers: a flow continues with its answer while the wait that got it still cleans up."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import UUID

T = TypeVar("T")

_END_SECONDS: Final = 1.0
_TIDY_SECONDS: Final = 12.0
"""Longer than two calls to Prefect can take: a wait whose thread was killed must not block the next one for longer."""

_WAKE_SECONDS: Final = 0.5
"""Interval at which a thread that waits for an answer can be interrupted, as when Prefect times out a task or flow."""


_TASK: Final = "a wait of Sluice"


@dataclass(frozen=True, slots=True)
class Turn:
    """One wait's turn in its run: the next turn begins when this wait is answered and has cleaned up."""

    answered: concurrent.futures.Future[None] = field(default_factory=concurrent.futures.Future)
    tidied: concurrent.futures.Future[None] = field(default_factory=concurrent.futures.Future)

    def has_answer(self) -> None:
        """Record that the wait has its answer, so that only the clean-up is left."""
        if not self.answered.done():
            self.answered.set_result(None)

    def end(self) -> None:
        """End the turn; the next one begins."""
        self.has_answer()
        if not self.tidied.done():
            self.tidied.set_result(None)

    async def ended(self) -> None:
        """Return once the wait is answered and has cleaned up, or its time for that is over."""
        await asyncio.wait({asyncio.wrap_future(self.answered)})
        await asyncio.wait({asyncio.wrap_future(self.tidied)}, timeout=_TIDY_SECONDS)


_last: dict[UUID, Turn] = {}
"""The last turn of each run, whose waits run one after the other, whichever threads or loops they are in."""

_guard = threading.Lock()


async def answer_of(run_id: UUID, wait: Callable[[asyncio.Future[T]], Coroutine[Any, Any, T]]) -> T:
    """Return, at once, the value that ``wait`` sets in its future; or what it returns or raises without that.

    ``wait`` then continues by itself on the same loop, and the run's next wait begins after it.
    """
    turn = Turn()
    with _guard:
        before = _last.get(run_id)
        _last[run_id] = turn
    turn.tidied.add_done_callback(lambda _: _forget(run_id, turn))
    if before is not None:
        try:
            await before.ended()
        except BaseException:
            before.tidied.add_done_callback(lambda _: turn.end())  # the wait after us waits for the one before us
            raise
    answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(wait(answer), name=_TASK)
    waiting.add_done_callback(lambda task: _over(task, turn))
    try:
        await asyncio.wait({answer, waiting}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        waiting.cancel()
        await asyncio.wait({waiting}, timeout=_END_SECONDS)
        turn.end()
        raise
    if not answer.done():
        return await waiting
    turn.has_answer()
    return answer.result()


def _over(task: asyncio.Task[Any], turn: Turn) -> None:
    if not task.cancelled():
        task.exception()  # after the answer nobody reads it
    turn.end()


def _forget(run_id: UUID, turn: Turn) -> None:
    with _guard:
        if _last.get(run_id) is turn:
            del _last[run_id]


def in_thread(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine on a loop in a thread of its own, which lives until its waits have cleaned up, or 12 s.

    Returns or raises at once what the coroutine returns or raises; an interruption of the caller cancels it.
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
        tidying = {other for other in asyncio.all_tasks() if other.get_name() == _TASK}
        if tidying:
            await asyncio.wait(tidying, timeout=_TIDY_SECONDS)

    context = contextvars.copy_context()
    # No daemon thread: a process that ends with the answer lets the wait clean up.
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
