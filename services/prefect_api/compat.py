"""Every private part of Prefect, and of the HTTP client inside its own, that the services use.

Seen in Prefect 3.8.8 and 3.9.1. Public names of Prefect may be used where they are needed; names that begin with an
underscore, or are patched, are used only here (`tests/unit/services/prefect_api/test_compat.py` holds that, and names
the part that a new version has moved). Each entry says why it is needed and what happens without it.
`services.local.sqlite_turns` is the exception: it exists to change the database layer of Prefect's server. Imports are
inside the functions, as they cost a command time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

if TYPE_CHECKING:
    import httpx
    from prefect import Flow
    from prefect.client.orchestration import PrefectClient, SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.runner._hook_runner import HookRunner
    from prefect.runner._state_proposer import StateProposer

_STORAGE_READERS: Final = (
    "_read_server_default_result_storage_block_id",
    "_aread_server_default_result_storage_block_id",
)

_SUSPENSION_OBSERVER: Final = "observe_flow_run_suspension"

TRACE_LABEL: Final = "__OTEL_TRACEPARENT"
"""The label of a run in which the engine looks for the span that the run's is below. Without it: a trace of its own."""


def http_client(client: PrefectClient | SyncPrefectClient) -> Any:
    """The httpx client inside Prefect's, which has no method for some routes. Without it: none of our calls."""
    return client._client  # noqa: SLF001


async def send_once(client: PrefectClient, request: httpx.Request) -> httpx.Response:
    """Send with Prefect's CSRF token and without its repeats. Without it: what must happen once may happen twice."""
    import httpx

    inner = http_client(client)
    if inner.enable_csrf_support and request.method != "GET":
        await inner._add_csrf_headers(request)  # noqa: SLF001 - what its own `send` does first
    return await httpx.AsyncClient.send(inner, request)


async def empty_connection_pool(client: PrefectClient) -> None:
    """Replace the connection pool.

    httpcore loses a connection for good if a request is cancelled in the moment that it gets it. Without it: after many
    lost ones every call ends in a `PoolTimeout`.
    """
    await http_client(client)._transport._pool.aclose()  # noqa: SLF001 - the pool goes on empty


def setting_names() -> frozenset[str]:
    """Return the environment variables that Prefect reads. Without it: misspelt ones are not reported."""
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_valid_setting_names

    return frozenset(_get_valid_setting_names(Settings))


def set_intent(intent: str) -> None:
    """Set what the next SIGTERM means to the engine in this process. Without it: a cancelled run counts as crashed."""
    from prefect._internal.control_listener import _set_intent

    _set_intent(cast(Any, intent))


def state_proposer(client: PrefectClient) -> StateProposer:
    """Return Prefect's runner's proposer of states. Without it: crashed runs are not reported as the runner does."""
    from prefect.runner._state_proposer import StateProposer

    return StateProposer(client=client)


def hook_runner(resolve_flow: Callable[[FlowRun], Awaitable[Flow[..., Any]]]) -> HookRunner:
    """Return the runner of a flow's hooks after its process has ended.

    Without it: no on_crashed and on_cancellation.
    """
    from prefect.runner._hook_runner import HookRunner

    return HookRunner(resolve_flow=resolve_flow)


async def finalize_cancelled_state(client: PrefectClient, flow_run: FlowRun, *, message: str) -> None:
    """Set a run from Cancelling to Cancelled, as Prefect's runner does. Without it: the run stays Cancelling."""
    from prefect.logging.loggers import flow_run_logger
    from prefect.runner._cancel_finalizer import finalize_cancelled_state

    await finalize_cancelled_state(
        flow_run=flow_run,
        state_proposer=state_proposer(client),
        client=client,
        logger=flow_run_logger(flow_run).logger,
        state_updates={"message": message},
    )


def answer_default_storage(known: UUID | None, *, counts: Callable[[], bool]) -> None:
    """While ``counts``, the engine takes the server's default result storage from here instead of asking for it.

    Without it: two more requests before the first line of a flow. Nothing is done where Prefect lacks these names.
    """
    import prefect.results

    plain, awaited = (getattr(prefect.results, name, None) for name in _STORAGE_READERS)
    if plain is None or awaited is None:
        return

    def answer() -> UUID | None:
        return known if counts() else plain()

    async def answer_later() -> UUID | None:
        return known if counts() else await awaited()

    for name, function in zip(_STORAGE_READERS, (answer, answer_later), strict=True):
        setattr(prefect.results, name, function)


def observe_suspensions_by(observe: Callable[..., Any]) -> Callable[..., Any] | None:
    """Have the engine open ``observe(run id, request)`` around each run instead of its own; return its own.

    Without it: a thread, a client and a websocket in each run. Nothing is done where Prefect lacks the name.
    """
    import prefect.flow_engine

    own: Callable[..., Any] | None = getattr(prefect.flow_engine, _SUSPENSION_OBSERVER, None)
    if own is not None:
        setattr(prefect.flow_engine, _SUSPENSION_OBSERVER, observe)
    return own


def pause_by(
    sleep: Callable[[float], Awaitable[None]],
    make: Callable[[Callable[..., Any]], tuple[Callable[..., Any], Callable[..., Any]]],
) -> None:
    """Have Prefect's ``apause_flow_run`` wait by ``sleep`` between its looks at its run, and flows use what is made.

    ``make`` gets that function, and returns what takes its place and that of ``pause_flow_run``. Without it: a run that
    was resumed goes on at its next look, up to ten seconds later.
    """
    import anyio
    import prefect.flow_runs
    import prefect.main

    own = prefect.flow_runs.apause_flow_run
    cast(Any, prefect.flow_runs).anyio = SimpleNamespace(move_on_after=anyio.move_on_after, sleep=sleep)
    made = dict(zip(("apause_flow_run", "pause_flow_run"), make(own), strict=True))
    for module in (prefect, prefect.main, prefect.flow_runs):
        vars(module).update(made)
