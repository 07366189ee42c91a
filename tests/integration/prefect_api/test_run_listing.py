"""Runs listed and counted by what somebody asks for, on a real Prefect server."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from config.health import CANARY
from events.errors import ConfigError
from services.prefect_api.client import PrefectApi
from services.prefect_api.run_listing import RunQuery, count_by_state, is_tag_used, list_runs
from tests.integration.delivery.world import set_state
from tests.integration.prefect_api.conftest import new_run


async def _three(api: PrefectApi, flow: str) -> dict[str, str]:
    """A run that failed, one that runs, and one that was cancelled."""
    runs = {kind: await new_run(api, flow, "RUNNING", tags=(f"mark:{flow}",)) for kind in ("FAILED", "RUNNING")}
    runs["CANCELLED"] = await new_run(api, flow, "RUNNING", tags=(f"mark:{flow}", "other"))
    for kind in ("FAILED", "CANCELLED"):
        await set_state(api, runs[kind], kind, name="TimedOut" if kind == "FAILED" else None)
    return runs


async def test_runs_of_a_flow_are_listed_newest_first_with_what_they_are(api: PrefectApi, name: str) -> None:
    flow = name.partition("/")[0]
    runs = await _three(api, flow)
    rows = await list_runs(api, RunQuery(deployment=flow), limit=9)
    assert {row["id"] for row in rows} == set(runs.values())
    assert {(row["flow"], row["deployment"]) for row in rows} == {(flow, None)}
    assert [row["expected"] for row in rows] == sorted((row["expected"] for row in rows), reverse=True)
    assert len(await list_runs(api, RunQuery(deployment=flow), limit=2)) == 2


@pytest.mark.parametrize(
    ("states", "found"),
    [
        (("failed",), {"FAILED"}),
        (("timedout",), {"FAILED"}),
        (("RUNNING", "Cancelled"), {"RUNNING", "CANCELLED"}),
        (("TimedOut", "running"), {"FAILED", "RUNNING"}),
        (("late",), set()),
    ],
)
async def test_states_are_named_by_type_or_name_in_any_case(
    api: PrefectApi, name: str, states: tuple[str, ...], found: set[str]
) -> None:
    flow = name.partition("/")[0]
    runs = await _three(api, flow)
    rows = await list_runs(api, RunQuery(deployment=flow, states=states), limit=9)
    assert {row["id"] for row in rows} == {runs[kind] for kind in found}


async def test_a_state_name_of_a_flows_own_is_known_by_its_runs(api: PrefectApi, name: str) -> None:
    flow, own = name.partition("/")[0], f"Own{uuid.uuid4().hex[:6]}"
    run_id = await new_run(api, flow, "RUNNING")
    await set_state(api, run_id, "COMPLETED", name=own)
    (row,) = await list_runs(api, RunQuery(deployment=flow, states=(own.lower(),)), limit=9)
    assert row["id"] == run_id
    with pytest.raises(ConfigError, match="is no state that a run is in: choose from") as raised:
        await list_runs(api, RunQuery(deployment=flow, states=("nonsense",)), limit=9)
    assert own.lower() in str(raised.value)


async def test_all_tags_must_be_there_and_ids_narrow(api: PrefectApi, name: str) -> None:
    flow = name.partition("/")[0]
    runs = await _three(api, flow)
    rows = await list_runs(api, RunQuery(tags=(f"mark:{flow}", "other")), limit=9)
    assert [row["id"] for row in rows] == [runs["CANCELLED"]]
    rows = await list_runs(api, RunQuery(run_ids=(runs["FAILED"], str(uuid.uuid4()))), limit=9)
    assert [row["id"] for row in rows] == [runs["FAILED"]]
    assert await is_tag_used(api, f"mark:{flow}")
    assert not await is_tag_used(api, f"mark:{uuid.uuid4()}")


async def test_times_narrow_and_runs_of_the_future_are_left_out(api: PrefectApi, name: str) -> None:
    flow = name.partition("/")[0]
    later = await new_run(
        api, flow, state_details={"scheduled_time": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    )
    now = await new_run(api, flow, "RUNNING")

    async def ids(**narrowed: datetime | tuple[str, ...]) -> set[str]:
        return {row["id"] for row in await list_runs(api, RunQuery(deployment=flow, **narrowed), limit=9)}

    assert await ids() == {now}
    assert await ids(states=("scheduled",)) == {later}
    assert await ids(until=datetime.now(UTC) + timedelta(hours=2)) == {now, later}
    assert await ids(since=datetime.now(UTC) + timedelta(minutes=30), until=datetime.now(UTC) + timedelta(hours=2)) == {
        later
    }
    assert await ids(until=datetime.now(UTC) - timedelta(hours=1)) == set()


async def test_the_canarys_runs_are_listed_only_where_they_are_asked_for(api: PrefectApi, name: str) -> None:
    flow = name.partition("/")[0]
    called = f"{CANARY}-1"
    run_id = await new_run(api, flow, "RUNNING", name=called, tags=(f"mark:{flow}",))
    assert run_id not in {row["id"] for row in await list_runs(api, RunQuery(), limit=50)}
    for query in (RunQuery(deployment=flow), RunQuery(tags=(f"mark:{flow}",)), RunQuery(run_ids=(run_id,))):
        assert [row["id"] for row in await list_runs(api, query, limit=9)] == [run_id]


async def test_runs_are_counted_by_the_names_of_their_states(api: PrefectApi, name: str) -> None:
    flow = name.partition("/")[0]
    await _three(api, flow)
    await new_run(api, flow, "RUNNING")
    counts = await count_by_state(api, RunQuery(deployment=flow))
    assert counts == {"Running": 2, "Cancelled": 1, "TimedOut": 1}
    assert next(iter(counts)) == "Running", "the most frequent first"


async def test_a_flow_or_deployment_that_does_not_exist_is_said_with_the_nearest_name(
    api: PrefectApi, name: str
) -> None:
    assert await list_runs(api, RunQuery(deployment=name), limit=9) == [], "it exists and has no runs"
    flow = name.partition("/")[0]
    with pytest.raises(ConfigError, match="there is no flow") as raised:
        await list_runs(api, RunQuery(deployment=f"{flow}x"), limit=9)
    assert flow in str(raised.value)
    with pytest.raises(ConfigError, match="there is no such deployment"):
        await list_runs(api, RunQuery(deployment=f"{flow}/defaul"), limit=9)
