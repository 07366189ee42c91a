"""Suspends a run from outside: the executor receives it for all its runs, and the slot passes it to the run process.

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

from prefect.client.schemas.objects import State, StateType

from services.prefect_api.compat import observe_suspensions_by


class Request(Protocol):
    """Prefect's object by which the engine learns that the run has been suspended."""

    def mark_requested(self, state: State[Any]) -> None:
        """Let the engine stop at its next step."""


class Suspension:
    """The suspension of one run; `ask` is called in one thread, the engine runs in another."""

    def __init__(self, run_id: str) -> None:
        self._id = UUID(run_id)
        self._lock = threading.Lock()
        self._since: datetime | None = None
        self._request: Request | None = None
        self._state: State[Any] | None = None
        self._own: Any = None

    def claimed(self, since: datetime) -> None:
        """Ignore what happened to the run before ``since``: it does not concern this process."""
        with self._lock:
            self._since = since
            if self._state is not None and self._state.timestamp <= since:
                self._state = None

    def ask(self, state_id: str, moment: datetime) -> None:
        """Record when the run entered the state Suspended."""
        with self._lock:
            if self._since is not None and moment <= self._since:
                return
            self._state = State(id=UUID(state_id), type=StateType.PAUSED, name="Suspended", timestamp=moment)
            if self._request is not None:
                self._request.mark_requested(self._state)

    def take_over(self) -> None:
        """Have the engine receive suspensions from here instead of from Prefect."""
        self._own = observe_suspensions_by(self._observe)

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
