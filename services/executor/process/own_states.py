"""Reports to the slot which states of its run the run process sets itself.

Prefect publishes every state. Only the process knows which of them it set itself, and whether it is paused: the
executor needs the former to recognise that somebody else ended a run, the latter to count working runs.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, SyncPrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Abort, Pause

from services.executor.messages import ProcessMessage, RunPaused, SettingState, StateSet

Report = Callable[[ProcessMessage], None]


class OwnStates:
    """Reports `SettingState` before the process sets the run's state, and `StateSet` with the state that it became.

    `RunPaused` is reported when the first of the process's runs (the run itself and its subflows) is paused, and when
    none is any more, as far as the process has noticed.
    """

    def __init__(self, run_id: str, report: Report) -> None:
        self._id = run_id
        self._report = report
        self._lock = threading.Lock()
        self._paused: set[str] = set()
        self._have_paused: set[str] = set()

    def listen(self) -> None:
        """Read the requests and responses of all Prefect clients in this process from now on."""
        for client in (SyncPrefectClient, PrefectClient):
            for name, wrap in (("set_flow_run_state", self._setting), ("read_flow_run", self._reading)):
                setattr(client, name, wrap(getattr(client, name), awaited=client is PrefectClient))

    def _setting(self, inner: Callable[..., Any], *, awaited: bool) -> Callable[..., Any]:
        """Return Prefect's ``set_flow_run_state``, which also notes the state that this run was set to."""

        @functools.wraps(inner)
        def set_state(client: Any, flow_run_id: UUID | str, *args: Any, **options: Any) -> Any:
            with self._reported(flow_run_id) as responses:
                responses.append(inner(client, flow_run_id, *args, **options))
            return responses[0]

        @functools.wraps(inner)
        async def set_state_async(client: Any, flow_run_id: UUID | str, *args: Any, **options: Any) -> Any:
            with self._reported(flow_run_id) as responses:
                responses.append(await inner(client, flow_run_id, *args, **options))
            return responses[0]

        return set_state_async if awaited else set_state

    def _reading(self, inner: Callable[..., Any], *, awaited: bool) -> Callable[..., Any]:
        """Return Prefect's ``read_flow_run``, which also notes the state that was read."""

        @functools.wraps(inner)
        def read(client: Any, flow_run_id: UUID, *args: Any, **options: Any) -> Any:
            found = inner(client, flow_run_id, *args, **options)
            self._seen(flow_run_id, found.state)
            return found

        @functools.wraps(inner)
        async def read_async(client: Any, flow_run_id: UUID, *args: Any, **options: Any) -> Any:
            found = await inner(client, flow_run_id, *args, **options)
            self._seen(flow_run_id, found.state)
            return found

        return read_async if awaited else read

    @contextmanager
    def _reported(self, run_id: UUID | str) -> Iterator[list[Any]]:
        """Report the request before, and the response that the block puts into the list after."""
        own = str(run_id) == self._id
        if own:
            self._report(SettingState())
        responses: list[Any] = []
        try:
            yield responses
        finally:
            state = responses[0].state if responses and responses[0] is not None else None
            if own:
                self._report(StateSet(str(state.id) if state is not None else None))
            if state is not None and state.is_paused():
                self._have_paused.add(str(run_id))
            self._seen(run_id, state)

    def _seen(self, run_id: UUID | str, state: State[Any] | None) -> None:
        """Report when a run of this process that has paused goes on or pauses again."""
        if state is None or str(run_id) not in self._have_paused:
            return
        paused = waits_in_process(state)
        with self._lock:
            before = bool(self._paused)
            (self._paused.add if paused else self._paused.discard)(str(run_id))
            if bool(self._paused) != before:
                self._report(RunPaused(paused))


def waits_in_process(state: State[Any]) -> bool:
    """Whether a run in the state needs its process while it waits: paused, and not suspended."""
    return state.type == StateType.PAUSED and not state.state_details.pause_reschedule


def was_left(end: Abort | Pause, run_id: UUID) -> bool:
    """Whether the process left its run for the state that it was in, which may be another one by now."""
    state: State[Any] | None = getattr(end, "state", None)
    return state is not None and state.state_details.flow_run_id == run_id
