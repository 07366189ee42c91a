"""A home for the flows, and Prefect's client to ask what became of their runs."""

from __future__ import annotations

import gc
import json
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State

from tests.support.waiting import wait_until

ENDED = r"Finished in state (Completed|Failed|Cancelled)"


@pytest.fixture
def _collected() -> Iterator[None]:
    """For tests that wait for a signal: Prefect's client leaves a socket of a finished event loop to the collector."""
    yield
    gc.collect()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The flows' SLUICE_HOME."""
    path = tmp_path / "home"
    monkeypatch.setenv("SLUICE_HOME", str(path))
    return path


@pytest.fixture
def prefect(prefect_url: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def run_id(state: State[Any]) -> uuid.UUID:
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id


@pytest.fixture
def artifacts(prefect: SyncPrefectClient) -> Callable[[State[Any] | uuid.UUID], dict[str | None, Any]]:
    """The artifacts of a run, or of the one that ended in a state, by their keys; tables are parsed."""

    def read(run: State[Any] | uuid.UUID) -> dict[str | None, Any]:
        where = {"artifacts": {"flow_run_id": {"any_": [str(run if isinstance(run, uuid.UUID) else run_id(run))]}}}
        found = prefect.request("POST", "/artifacts/filter", json=where).json()
        return {one["key"]: json.loads(one["data"]) if one["type"] == "table" else one["data"] for one in found}

    return read


@pytest.fixture
def logs(prefect: SyncPrefectClient) -> Callable[[State[Any]], list[str]]:
    """What the run that ended in a state has logged, once Prefect has its last line."""

    def read(state: State[Any]) -> list[str]:
        where = {"logs": {"flow_run_id": {"any_": [str(run_id(state))]}}, "sort": "TIMESTAMP_ASC", "limit": 200}

        def lines() -> list[dict[str, Any]]:
            return list(prefect.request("POST", "/logs/filter", json=where).json())

        def ended() -> bool:
            return any(not line["task_run_id"] and re.match(ENDED, line["message"]) for line in lines())

        wait_until(ended, what="the run's last line is stored")
        return [line["message"] for line in lines()]

    return read


def form_is_shown(prefect: SyncPrefectClient, run: dict[str, Any]) -> bool:
    """Whether Prefect takes an answer to the paused run already: its form is shown a moment after the pause."""
    key = run["state"]["state_details"]["run_input_keyset"]["schema"]
    return bool(prefect.request("POST", f"/flow_runs/{run['id']}/input/filter", json={"prefix": key}).json())


@pytest.fixture
def waiting_run(prefect: SyncPrefectClient) -> Callable[[str], uuid.UUID]:
    """The id of the run that waits for a key, once it can be answered."""

    def find(key: str) -> uuid.UUID:
        where = {"flow_runs": {"tags": {"all_": [f"awaits:{key}"]}, "state": {"type": {"any_": ["PAUSED"]}}}}

        def runs() -> list[dict[str, Any]]:
            found = prefect.request("POST", "/flow_runs/filter", json=where).json()
            return [run for run in found if form_is_shown(prefect, run)]

        return uuid.UUID(wait_until(runs, what=f"a run waits for {key}")[0]["id"])

    return find
