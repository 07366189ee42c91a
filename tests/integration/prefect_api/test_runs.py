"""States of runs, read together and cheaply; and what Prefect has announced before it shows it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from services.prefect_api import runs as runs_module
from services.prefect_api.client import PrefectApi
from services.prefect_api.runs import committed, ended_since, is_retrying, news_of, retries_waiting, states_of
from tests.integration.delivery.world import set_state
from tests.integration.prefect_api.conftest import new_run

NOW = datetime.now(UTC)


async def test_states_are_read_by_id_and_a_deleted_run_is_missing(api: PrefectApi, name: str) -> None:
    run_id = await new_run(api, name.partition("/")[0], "RUNNING", tags=("sluice",))
    await set_state(api, run_id, "FAILED", message="no money")
    (state,) = await states_of(api, [run_id, str(uuid.uuid4())])
    assert (state.run_id, state.state_type, state.state_name, state.message) == (run_id, "FAILED", "Failed", "no money")
    assert state.tags == ("sluice",)
    assert abs((state.occurred - NOW).total_seconds()) < 3600


async def test_news_are_of_what_moves_has_ended_or_is_gone(api: PrefectApi, name: str) -> None:
    flow = name.partition("/")[0]
    runs = [await new_run(api, flow, kind) for kind in ("SCHEDULED", "RUNNING", "FAILED")]
    news = await news_of(api, runs)
    assert {state.run_id for state in news.moved} == {runs[1], runs[2]}
    assert news.gone == ()
    gone = str(uuid.uuid4())
    news = await news_of(api, [*runs, gone])
    assert {runs[1], runs[2]} <= {state.run_id for state in news.moved}
    assert list(news.gone) == [gone]


async def test_runs_that_have_ended_since_are_found_by_their_tag(api: PrefectApi, name: str) -> None:
    flow, tag = name.partition("/")[0], f"tag-{uuid.uuid4().hex[:8]}"
    mine = await new_run(api, flow, "RUNNING", tags=(tag,))
    other = await new_run(api, flow, "RUNNING")
    await new_run(api, flow, "RUNNING", tags=(tag,))
    for run_id in (mine, other):
        await set_state(api, run_id, "COMPLETED")
    assert [state.run_id for state in await ended_since(api, NOW - timedelta(minutes=1), tag=tag)] == [mine]
    assert await ended_since(api, NOW + timedelta(hours=1), tag=tag) == []


async def test_runs_that_wait_to_be_tried_again_are_found_by_their_tag(api: PrefectApi, name: str) -> None:
    flow, tag = name.partition("/")[0], f"tag-{uuid.uuid4().hex[:8]}"
    again = await new_run(api, flow, "RUNNING", tags=(tag,))
    await new_run(api, flow, tags=(tag,))
    await set_state(api, again, "SCHEDULED", name="AwaitingRetry")
    assert [state.run_id for state in await retries_waiting(api, tag=tag)] == [again]


async def test_what_is_not_committed_yet_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "COMMIT_PAUSES", (0.0, 0.0, 0.0))
    asked: list[int] = []

    async def third() -> str | None:
        asked.append(len(asked))
        return "there" if len(asked) == 3 else None

    assert await committed(third) == "there"
    assert len(asked) == 3
    asked.clear()

    async def never() -> None:
        asked.append(0)

    assert await committed(never) is None
    assert len(asked) == 4, "once after each pause, and once more"


def test_the_pauses_last_about_as_long_as_a_commit_may_take() -> None:
    assert 1.5 < sum(runs_module.COMMIT_PAUSES) < runs_module.COMMIT_SECONDS


@pytest.mark.parametrize(
    ("name", "kind", "own"),
    [("AwaitingRetry", "in_process", True), ("AwaitingRetry", "reschedule", False), ("AwaitingRetry", None, False),
     ("Scheduled", "in_process", False), (None, "in_process", False)],
)  # fmt: skip
def test_a_run_is_between_two_tries_of_its_process_or_to_be_started(
    name: str | None, kind: str | None, own: bool
) -> None:
    assert is_retrying(name, kind) is own
