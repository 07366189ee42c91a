"""The private parts of Prefect: in one module, and still where that module looks for them.

When a new version of Prefect makes one of these tests fail, its name says which part has moved: mend it in
`services.prefect_api.compat`, and nowhere else.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any, get_args

import httpx
import prefect.flow_engine
import prefect.flow_runs
import prefect.main
import prefect.results
import pytest
from prefect.client.orchestration import PrefectClient, SyncPrefectClient

from config.settings import CHECKOUT
from services.prefect_api.compat import (
    _STORAGE_READERS,
    _SUSPENSION_OBSERVER,
    TRACE_LABEL,
    http_client,
    send_once,
    setting_names,
)

OWNERS = {"services/prefect_api/compat.py", "services/local/sqlite_turns.py"}


def _private_imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "prefect":
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            if any(name.startswith("_") for name in names):
                found.append(f"{path}:{node.lineno}")
    return found


def test_private_parts_are_imported_by_one_module_alone() -> None:
    paths = [path for room in ("services", "config", "events") for path in (CHECKOUT / room).rglob("*.py")]
    elsewhere = [path for path in paths if path.relative_to(CHECKOUT).as_posix() not in OWNERS]
    assert not [line for path in elsewhere for line in _private_imports(path)]
    assert _private_imports(CHECKOUT / "services" / "prefect_api" / "compat.py")


def test_prefect_tells_the_names_of_its_settings() -> None:
    assert {"PREFECT_API_URL", "PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_HOME"} <= setting_names()


def test_the_client_has_an_httpx_client_inside() -> None:
    with SyncPrefectClient("http://127.0.0.1:9/api") as client:
        assert isinstance(http_client(client), httpx.Client)
        assert isinstance(http_client(client).enable_csrf_support, bool)


async def test_a_request_is_sent_once_with_its_csrf_headers() -> None:
    async with PrefectClient("http://127.0.0.1:9/api") as client:
        assert inspect.iscoroutinefunction(http_client(client)._add_csrf_headers)
        http_client(client).enable_csrf_support = False
        request = http_client(client).build_request("POST", "/flows/")
        with pytest.raises(httpx.ConnectError):
            await send_once(client, request)


async def test_the_connection_pool_of_the_client_can_be_emptied() -> None:
    async with PrefectClient("http://127.0.0.1:9/api") as client:
        assert inspect.iscoroutinefunction(http_client(client)._transport._pool.aclose)


def test_the_engine_takes_an_intent() -> None:
    from prefect._internal.control_listener import _set_intent

    (intent,) = inspect.signature(_set_intent).parameters.values()
    kinds: Any = inspect.get_annotations(_set_intent, eval_str=True)[intent.name]
    assert "cancel" in get_args(kinds)


def test_the_parts_of_the_runner_take_what_is_given_them() -> None:
    from prefect.runner._cancel_finalizer import finalize_cancelled_state
    from prefect.runner._hook_runner import HookRunner
    from prefect.runner._state_proposer import StateProposer

    wanted = {"flow_run", "state_proposer", "client", "logger", "state_updates"}
    assert wanted <= set(inspect.signature(finalize_cancelled_state).parameters)
    assert "resolve_flow" in inspect.signature(HookRunner).parameters
    assert "client" in inspect.signature(StateProposer).parameters
    assert {"propose_crashed"} <= set(dir(StateProposer))
    assert {"run_crashed_hooks", "run_cancellation_hooks"} <= set(dir(HookRunner))


@pytest.mark.parametrize("name", _STORAGE_READERS)
def test_the_engine_reads_the_default_storage_by_a_function_of_its_module(name: str) -> None:
    assert callable(getattr(prefect.results, name))


def test_the_engine_observes_suspensions_by_a_function_of_its_module() -> None:
    observer = getattr(prefect.flow_engine, _SUSPENSION_OBSERVER)
    first, second, *others = inspect.signature(observer).parameters.values()
    assert (first.name, second.name) == ("flow_run_id", "suspension_request")
    assert all(other.default is not inspect.Parameter.empty for other in others)
    assert f"{_SUSPENSION_OBSERVER}(" in inspect.getsource(prefect.flow_engine)


def test_a_pause_sleeps_and_ends_by_anyio_of_its_module() -> None:
    source = inspect.getsource(prefect.flow_runs)
    assert set(re.findall(r"anyio\.(\w+)", source)) == {"move_on_after", "sleep"}
    assert "await anyio.sleep(poll_interval)" in inspect.getsource(prefect.flow_runs.apause_flow_run)
    assert prefect.main.pause_flow_run is prefect.pause_flow_run is prefect.flow_runs.pause_flow_run


def test_the_request_to_suspend_takes_the_state() -> None:
    from prefect._flow_run_suspension import FlowRunSuspensionRequest

    assert "state" in inspect.signature(FlowRunSuspensionRequest.mark_requested).parameters


def test_the_engine_looks_for_the_trace_of_a_run_in_this_label() -> None:
    from prefect.telemetry.run_telemetry import LABELS_TRACEPARENT_KEY

    assert LABELS_TRACEPARENT_KEY == TRACE_LABEL
