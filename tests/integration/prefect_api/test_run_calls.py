"""Runs as commands and the executor find, start, stop and judge them, on a real Prefect server."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from events.errors import NotFound, Refused
from services.prefect_api import run_calls
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import read_by_name
from services.prefect_api.run_calls import (
    CLAIMED,
    cancel_run,
    end_cancelling,
    in_process,
    read_logs,
    read_run,
    refuse_start,
    start_run,
    stopped,
    try_again,
    was_claimed,
)
from tests.integration.delivery.world import deployment, set_state
from tests.integration.prefect_api.conftest import new_run

SUSPENDED = {"name": "Suspended", "state_details": {"pause_reschedule": True}}


async def _state(api: PrefectApi, run_id: str) -> tuple[str, str]:
    found = await api.request("GET", f"/flow_runs/{run_id}")
    return found["state"]["type"], found["state"]["message"] or ""


@pytest.mark.parametrize("asked", ["{flow}/default", "{flow}"])
async def test_a_run_is_started_with_its_parameters(api: PrefectApi, name: str, asked: str) -> None:
    flow = name.partition("/")[0]
    row = await start_run(api, asked.format(flow=flow), {"amount": 5}, name="owl")
    assert (row["name"], row["flow"], row["deployment"], row["state"]) == ("owl", flow, name, "Scheduled")
    assert row["parameters"] == {"amount": 5}


async def test_what_cannot_be_started_is_said_with_the_nearest_name(api: PrefectApi, name: str) -> None:
    with pytest.raises(NotFound, match="did you mean"):
        await start_run(api, name[:-1], {"amount": 5})
    with pytest.raises(Refused, match="amount"):
        await start_run(api, name, {"amount": "many"})


async def test_a_run_is_read_by_its_id_its_beginning_or_its_name(api: PrefectApi, name: str) -> None:
    own = f"owl-{uuid.uuid4().hex}"
    run_id = (await start_run(api, name, {"amount": 5}, name=own))["id"]
    for asked in (run_id, run_id.upper(), run_id[:18], own):
        assert (await read_run(api, asked))["id"] == run_id
    for asked in (str(uuid.uuid4()), "ffffffff-ffff-4fff", f"{own}-2", run_id[:3], ""):
        with pytest.raises(NotFound):
            await read_run(api, asked)


async def test_a_name_that_several_runs_share_names_them(api: PrefectApi, name: str) -> None:
    own = f"owl-{uuid.uuid4().hex}"
    ids = [(await start_run(api, name, {"amount": 5}, name=own))["id"] for _ in range(2)]
    with pytest.raises(Refused, match="give the id") as raised:
        await read_run(api, own)
    assert all(run_id in raised.value.reason for run_id in ids)


async def test_log_lines_are_the_last_ones_in_order(api: PrefectApi, name: str) -> None:
    run_id = (await start_run(api, name, {"amount": 5}))["id"]
    lines = [
        {"name": "flow", "level": level, "message": f"line {number}", "flow_run_id": run_id,
         "timestamp": f"2026-01-01T00:00:0{number}+00:00"}
        for number, level in enumerate([10, 20, 30, 25])
    ]  # fmt: skip
    await api.request("POST", "/logs/", json=lines)
    assert [(line["message"], line["level"]) for line in await read_logs(api, run_id, limit=3)] == [
        ("line 1", "info"), ("line 2", "warning"), ("line 3", "25")
    ]  # fmt: skip


async def test_an_ended_run_is_started_again_and_one_without_a_deployment_is_not(api: PrefectApi, name: str) -> None:
    run_id = (await start_run(api, name, {"amount": 5}))["id"]
    await set_state(api, run_id, "FAILED")
    await try_again(api, run_id, reason="Tried again by ann\x1b[31m")
    kind, message = await _state(api, run_id)
    assert (kind, "\x1b" in message, "ann" in message) == ("SCHEDULED", False, True)
    other = await new_run(api, name.partition("/")[0], "FAILED")
    with pytest.raises(Refused, match="does not let") as raised:
        await try_again(api, other, reason="again")
    assert raised.value.code == "not-retried"


@pytest.mark.parametrize(
    ("kind", "refused"), [("SCHEDULED", True), ("PENDING", True), ("RUNNING", False), ("COMPLETED", False)]
)
async def test_only_a_run_that_is_about_to_start_is_refused(
    api: PrefectApi, name: str, kind: str, refused: bool
) -> None:
    run_id = await new_run(api, name.partition("/")[0], kind)
    await refuse_start(api, run_id, reason="its file is gone")
    assert await _state(api, run_id) == (("FAILED", "its file is gone") if refused else (kind, ""))


@pytest.mark.parametrize(
    ("kind", "more", "now"),
    [
        ("SCHEDULED", {}, "Cancelled"),
        ("RUNNING", {}, "Cancelling"),
        ("PAUSED", {}, "Cancelling"),
        ("PAUSED", SUSPENDED, "Cancelled"),
    ],
    ids=["waiting", "running", "paused", "suspended"],
)
async def test_a_run_without_a_process_is_cancelled_at_once_with_the_reason(
    api: PrefectApi, name: str, kind: str, more: dict[str, Any], now: str
) -> None:
    run_id = (await start_run(api, name, {"amount": 5}))["id"]
    await set_state(api, run_id, "RUNNING")
    await api.request("POST", f"/flow_runs/{run_id}/set_state", json={"state": {"type": kind, **more}, "force": True})
    assert await cancel_run(api, run_id, reason="not wanted") == now
    assert await _state(api, run_id) == (now.upper(), "not wanted")


@pytest.mark.parametrize(
    ("kind", "more"),
    [("COMPLETED", {}), ("CANCELLED", {}), ("PAUSED", SUSPENDED)],
    ids=["ended", "cancelled", "suspended"],
)
async def test_a_run_that_prefect_does_not_cancel_is_not_said_to_be_cancelled(
    api: PrefectApi, name: str, kind: str, more: dict[str, Any]
) -> None:
    """It has ended, or it was suspended and has no deployment."""
    run_id = await new_run(api, name.partition("/")[0], "RUNNING")
    await api.request("POST", f"/flow_runs/{run_id}/set_state", json={"state": {"type": kind, **more}, "force": True})
    with pytest.raises(Refused, match="cannot be cancelled"):
        await cancel_run(api, run_id, reason="not wanted")
    assert (await _state(api, run_id))[0] == kind


async def test_runs_that_nobody_cancels_any_more_are_set_to_cancelled(api: PrefectApi, name: str) -> None:
    flow = name.partition("/")[0]
    cancelling, running = await new_run(api, flow, "RUNNING"), await new_run(api, flow, "RUNNING")
    await set_state(api, cancelling, "CANCELLING")
    assert await end_cancelling(api, [cancelling, running]) == [cancelling]
    assert (await _state(api, cancelling))[0] == "CANCELLED"
    assert (await _state(api, running))[0] == "RUNNING"


async def test_states_that_need_no_process_are_told_and_deleted_runs_too(
    api: PrefectApi, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_calls, "_DELETED_SECONDS", 0.0)
    flow = name.partition("/")[0]
    kinds = ("RUNNING", "PENDING", "PAUSED", "CANCELLING", "SCHEDULED", "COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    runs = {kind: await new_run(api, flow, "RUNNING") for kind in (*kinds, "SUSPENDED")}
    for kind, run_id in runs.items():
        state = {"type": "PAUSED", **SUSPENDED} if kind == "SUSPENDED" else {"type": kind}
        await api.request("POST", f"/flow_runs/{run_id}/set_state", json={"state": state, "force": True})
    gone = str(uuid.uuid4())
    found = {change.run_id: change for change in await stopped(api, [*runs.values(), gone])}
    assert {kind for kind, run_id in runs.items() if run_id in found} == set(kinds[3:]) | {"SUSPENDED"}
    assert (found[gone].state_type, found[gone].state_id) == ("DELETED", None)
    assert await stopped(api, []) == []


async def test_a_run_between_two_tries_of_its_own_process_is_not_stopped(api: PrefectApi, name: str) -> None:
    run_id = await new_run(api, name.partition("/")[0], "RUNNING")
    await api.request("PATCH", f"/flow_runs/{run_id}", json={"empirical_policy": {"retry_type": "in_process"}})
    await set_state(api, run_id, "SCHEDULED", name="AwaitingRetry")
    assert await stopped(api, [run_id]) == []


async def test_a_run_has_a_process_by_its_state_unless_it_is_suspended(api: PrefectApi, name: str) -> None:
    found = await read_by_name(api, name)
    runs = {kind: (await start_run(api, name, {"amount": 1}))["id"] for kind in ("RUNNING", "PAUSED", "FAILED", "none")}
    for kind in ("RUNNING", "PAUSED", "FAILED"):
        await set_state(api, runs[kind], kind)
    suspended = (await start_run(api, name, {"amount": 1}))["id"]
    await set_state(api, suspended, "RUNNING")
    body = {"state": {"type": "PAUSED", **SUSPENDED}, "force": True}
    await api.request("POST", f"/flow_runs/{suspended}/set_state", json=body)
    other = await read_by_name(api, await deployment(api))
    assert sorted(await in_process(api, [found.id, other.id])) == sorted([runs["RUNNING"], runs["PAUSED"]])
    assert await in_process(api, [other.id]) == []


async def test_the_last_claim_says_whose_run_it_is(api: PrefectApi, name: str) -> None:
    run_id = await new_run(api, name.partition("/")[0])
    assert not await was_claimed(api, run_id)
    await set_state(api, run_id, "PENDING", message=f"{CLAIMED}executor one")
    assert await was_claimed(api, run_id)
    await set_state(api, run_id, "RUNNING")
    assert await was_claimed(api, run_id)
    await set_state(api, run_id, "PENDING", message="by a worker of Prefect")
    assert not await was_claimed(api, run_id)
