"""Suspending a run from outside: the executor hears of it for all its runs, and the slot tells the run process.

Prefect's engine would watch for it in each run with a thread, a client and a websocket of its own, and wait for them at
the run's start and end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import prefect.flow_engine
from prefect.client.schemas.objects import State, StateType

_NAME = "observe_flow_run_suspension"


class Request(Protocol):
    """Prefect's note to the engine that the run has been suspended."""

    def mark_requested(self, state: State[Any]) -> None:
        """The engine stops at its next step."""


class Suspension:
    """One run's; hears `ask` in one thread and stands in the engine's way in another."""

    def __init__(self, run_id: str) -> None:
        self._id = UUID(run_id)
        self._lock = threading.Lock()
        self._since: datetime | None = None
        self._request: Request | None = None
        self._state: State[Any] | None = None
        self._own: Any = None

    def claimed(self, since: datetime) -> None:
        """What happened to the run up to then is not for this process."""
        with self._lock:
            self._since = since
            if self._state is not None and self._state.timestamp <= since:
                self._state = None

    def ask(self, state_id: str, occurred: str) -> None:
        """The run entered the state Suspended then."""
        moment = datetime.fromisoformat(occurred)
        with self._lock:
            if self._since is not None and moment <= self._since:
                return
            self._state = State(id=UUID(state_id), type=StateType.PAUSED, name="Suspended", timestamp=moment)
            if self._request is not None:
                self._request.mark_requested(self._state)

    def take_over(self) -> None:
        """Have the engine listen here instead of to Prefect."""
        self._own = getattr(prefect.flow_engine, _NAME, None)
        if self._own is not None:
            setattr(prefect.flow_engine, _NAME, self._observe)

    def _observe(self, run_id: UUID, request: Request, *args: Any, **options: Any) -> AbstractContextManager[None]:
        if run_id != self._id:
            own: AbstractContextManager[None] = self._own(run_id, request, *args, **options)
            return own
        return self._listening(request)

    @contextmanager
    def _listening(self, request: Request) -> Iterator[None]:
        with self._lock:
            self._request = request
            if self._state is not None:
                request.mark_requested(self._state)
        yield
