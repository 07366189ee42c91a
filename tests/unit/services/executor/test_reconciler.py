"""Each row of the reconciler's table, on a real Redis: what is compared, how long it must last, and what follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast
from unittest.mock import Mock
from uuid import uuid4

import pytest
import pytest_asyncio

from config.settings import RedisSettings
from services.executor import reconciler as module
from services.executor.job_enqueuer import JobEnqueuer
from services.executor.messages import FinalizeRun, RunBegan, SlotReady
from services.executor.pool.slots import SlotState
from services.executor.process_exits import EndReason, RunEnd
from services.executor.reconciler import SLOT_DIED, UNRECORDED, Reconciler
from services.prefect_api.client import PrefectApi
from services.prefect_api.run_calls import CLAIMED
from services.store.connection import AsyncRedis, connect_sync
from services.store.runs.executions import ALIVE, Execution, Executions
from tests.support.waiting import eventually

ME = "me"


class Pool:
    """The process pool, which has some runs and is asked to finalize others."""

    def __init__(self) -> None:
        self.slots = Mock(running={})
        self.finalized: list[FinalizeRun] = []

    def has(self, run_id: str) -> None:
        slot = SlotState(SlotReady(0, 1, 2, 3), Mock())
        slot.run = RunBegan(run_id, 4, 1.5, 1.0)
        self.slots.running[run_id] = slot

    def finalize(self, instruction: FinalizeRun) -> bool:
        self.finalized.append(instruction)
        return True


class Prefect(PrefectApi):
    """Shows some runs as running, claimed by Sluice unless ``foreign``."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.foreign = False
        self.cancelling: list[str] = []
        self.ended: list[tuple[str, str]] = []

    async def request(self, method: str, path: str, *, once: bool = False, **body: Any) -> Any:
        if body.get("json", {}).get("flow_runs", {}).get("state") == {"type": {"any_": ["CANCELLING"]}}:
            return [{"id": run_id} for run_id in self.cancelling]
        if path.endswith("/set_state"):
            self.ended.append((path.split("/")[2], body["json"]["state"]["type"]))
            return {}
        if path == "/flow_runs/filter":
            return [{"id": run_id, "state": {"state_details": {}}} for run_id in self.running]
        if path == "/health":
            return True
        assert path == "/flow_run_states/"
        message = "somebody's" if self.foreign else f"{CLAIMED}an executor"
        return [{"type": "PENDING", "timestamp": datetime.now(UTC).isoformat(), "message": message}]


class Bench:
    def __init__(self, url: str) -> None:
        redis = connect_sync(url, RedisSettings())
        self.executions = Executions(redis, name="bench", alive_seconds=600)
        self.enqueuer = JobEnqueuer(redis, held=self.executions.holds)
        self.pool, self.prefect = Pool(), Prefect()
        self.reconciler = Reconciler(
            instance=ME,
            executions=self.executions,
            enqueuer=self.enqueuer,
            pool=cast(Any, self.pool),
            intake=Mock(deployment_ids=["d"]),
            prefect=self.prefect,
            lost_seconds=0.2,
        )
        self.running = asyncio.create_task(self.reconciler.run())

    def noted(self, instance: str, **end: str) -> Execution:
        """A run in the register."""
        execution = Execution(str(uuid4()), instance, 1.5, **end)
        assert self.executions.begin(execution) is None
        return execution

    async def finalizes(self, run_id: str) -> RunEnd:
        """How the run is to end, once that is asked for."""

        async def asked() -> RunEnd | None:
            return next((one.end for one in self.pool.finalized if one.run_id == run_id), None)

        end = await eventually(asked, what="the run to be finalized")
        assert end is not None
        return end


@pytest_asyncio.fixture
async def bench(redis: AsyncRedis, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "OWN_SECONDS", 0.2)
    bench = Bench(valkey_url)
    yield bench
    bench.running.cancel()
    await asyncio.wait({bench.running})
    await bench.reconciler.leave()
    bench.enqueuer.close()


async def test_a_run_of_this_instance_that_no_slot_has_is_finalized_and_forgotten(bench: Bench) -> None:
    execution = bench.noted(ME)
    assert (await bench.finalizes(execution.run_id)).reason is EndReason.LOST
    bench.reconciler.finalized(execution.run_id, ok=False)
    assert bench.executions.holds(execution.run_id), "it is to be tried again"
    await eventually(lambda: asyncio.sleep(0, len(bench.pool.finalized) == 2))
    bench.reconciler.finalized(execution.run_id, ok=True)
    await eventually(lambda: asyncio.sleep(0, not bench.executions.holds(execution.run_id)))


async def test_the_end_that_was_owed_is_the_end_that_is_set(bench: Bench) -> None:
    execution = bench.noted(ME, ending="cancelled", message="The run was cancelled.")
    assert await bench.finalizes(execution.run_id) == RunEnd(EndReason.CANCELLED, "The run was cancelled.")


async def test_a_run_of_a_silent_instance_is_taken_over(bench: Bench) -> None:
    bench.executions.live("living")
    theirs, lost = bench.noted("living"), bench.noted("dead")
    assert "has not been heard of" in (await bench.finalizes(lost.run_id)).message
    assert {one.run_id: one.instance for one in bench.executions.all()} == {
        theirs.run_id: "living",
        lost.run_id: ME,
    }
    assert [one.run_id for one in bench.pool.finalized] == [lost.run_id]


async def test_a_run_on_a_slot_whose_record_is_lost_is_noted_again(bench: Bench) -> None:
    run_id = str(uuid4())
    bench.pool.has(run_id)
    await eventually(lambda: asyncio.sleep(0, bench.executions.all()), what="the record to be there again")
    assert bench.executions.all() == [Execution(run_id, ME, 1.5)]
    assert bench.pool.finalized == []


async def test_a_run_that_only_prefect_knows_is_finalized(bench: Bench) -> None:
    run_id = str(uuid4())
    bench.prefect.running = [run_id]
    assert await bench.finalizes(run_id) == RunEnd(EndReason.LOST, UNRECORDED)


async def test_a_run_of_somebody_elses_runner_is_told_and_left_alone(bench: Bench) -> None:
    ours, bench.prefect.foreign = bench.noted(ME), True
    bench.prefect.running = [str(uuid4())]
    await bench.finalizes(ours.run_id)
    await eventually(
        lambda: asyncio.sleep(0, bench.reconciler.without_process == bench.prefect.running), what="the run to be told"
    )
    assert [one.run_id for one in bench.pool.finalized] == [ours.run_id]
    bench.prefect.cancelling = bench.prefect.running
    await eventually(lambda: asyncio.sleep(0, bool(bench.prefect.ended)), what="the run to be cancelled")
    assert bench.prefect.ended[0] == (bench.prefect.running[0], "CANCELLED")


async def test_a_run_whose_slot_died_is_finalized_at_once(bench: Bench) -> None:
    execution = bench.noted(ME)
    bench.reconciler.orphaned(RunBegan(execution.run_id, 4, execution.since, 1.0))
    assert [one.end for one in bench.pool.finalized] == [RunEnd(EndReason.LOST, SLOT_DIED)]


async def test_an_instance_that_leaves_gives_no_sign_of_life_any_more(bench: Bench, redis: AsyncRedis) -> None:
    await eventually(lambda: redis.exists(ALIVE + ME))
    bench.running.cancel()
    await asyncio.wait({bench.running})
    await bench.reconciler.leave()
    assert not await redis.exists(ALIVE + ME)
