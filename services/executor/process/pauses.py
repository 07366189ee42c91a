"""Prefect's own pause in a run process: the flow continues as soon as its run is resumed, not only at its next poll."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from services.prefect_api.compat import pause_by
from services.prefect_api.runs import COMMIT_PAUSES
from sluice.hearing import Hearing, hearing
from sluice.waiting import dispatch

AsyncPause = Callable[..., Coroutine[Any, Any, Any]]


class _Looks:
    """Decides when a paused flow reads its run: at Prefect's interval, and when the run may have left the pause."""

    def __init__(self, run_id: UUID, heard: Hearing) -> None:
        self._run_id = run_id
        self._heard = heard
        self._watches = False
        self._soon: Iterator[float] = iter(())
        """Pauses before the next reads, until the state that was published is committed."""

    async def wait(self, seconds: float) -> None:
        """Return after ``seconds``, or earlier when the run has probably left the pause."""
        if not self._watches:
            async with get_client() as client:
                state = (await client.read_flow_run(self._run_id)).state
            if state is None or not state.is_paused():
                return
            self._heard.watch(state.timestamp)
            self._watches = True
        soon = next(self._soon, None)
        if soon is not None:
            await asyncio.sleep(soon)
            return
        hint = asyncio.ensure_future(self._heard.hint.wait())
        try:
            await asyncio.wait({hint}, timeout=seconds)
        finally:
            hint.cancel()
        if self._heard.taken():
            self._soon = iter(COMMIT_PAUSES)


_looks: ContextVar[_Looks] = ContextVar("looks")
"""The reads of the pause that is under way."""


def hear_resumes() -> None:
    """Make `pause_flow_run` notice a resume at once, in flows that import it after this call."""
    pause_by(lambda seconds: _looks.get().wait(seconds), _hearing)


def _hearing(own: AsyncPause) -> tuple[AsyncPause, Callable[..., Any]]:
    """Prefect's ``apause_flow_run`` and ``pause_flow_run``, both made of the former."""

    @functools.wraps(own)
    async def apause_flow_run(*args: Any, **options: Any) -> Any:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            return await own(*args, **options)  # Prefect's own function raises the error
        async with hearing(context.flow_run.id) as heard:
            token = _looks.set(_Looks(context.flow_run.id, heard))
            try:
                return await own(*args, **options)
            finally:
                _looks.reset(token)

    def pause_flow_run(*args: Any, **options: Any) -> Any:
        return dispatch(lambda: apause_flow_run(*args, **options))

    return apause_flow_run, pause_flow_run
