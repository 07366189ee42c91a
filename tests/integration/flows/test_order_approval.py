"""`order-approval` as a run that waits for an answer."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State

from flows.order_approval import order_approval

pytestmark = [
    pytest.mark.usefixtures("_collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
WaitingRun = Callable[[str], uuid.UUID]
Artifacts = Callable[[Any], dict[str | None, Any]]


def status(home: Path, order_id: str) -> str:
    database = sqlite3.connect(home / "data.db")
    try:
        (found,) = database.execute("SELECT status FROM order_reservations WHERE order_id = ?", [order_id]).fetchone()
    finally:
        database.close()
    return str(found)


def start(pool: ThreadPoolExecutor, order_id: str | int) -> Future[State[Any]]:
    return pool.submit(order_approval, order_id, 129.5, approve_within_seconds=30, return_state=True)


@pytest.mark.parametrize(
    ("answer", "name", "message", "ends_as"),
    [
        ({"approved": True, "by": "ada"}, "Completed", "order 1042 is confirmed by ada", "confirmed"),
        ({"approved": False, "note": "too dear"}, "Cancelled", "order 1042 is rejected: too dear", "rejected"),
    ],
)
def test_an_order_is_reserved_waits_and_ends_as_its_approver_says(  # noqa: PLR0917 - fixtures
    home: Path,
    prefect: SyncPrefectClient,
    waiting_run: WaitingRun,
    artifacts: Artifacts,
    answer: dict[str, Any],
    name: str,
    message: str,
    ends_as: str,
) -> None:
    with ThreadPoolExecutor(1) as pool:
        ending = start(pool, 1042)
        waiting = waiting_run("order-1042")
        assert status(home, "1042") == "reserved"
        assert [step["step"] for step in artifacts(waiting)["order-1042"]] == ["received", "reserved"]
        prefect.resume_flow_run(waiting, run_input=answer)
        state = ending.result()
    assert (state.name, state.message) == (name, message)
    assert status(home, "1042") == ends_as
    assert [step["step"] for step in artifacts(state)["order-1042"]] == ["received", "reserved", ends_as]
    assert "awaits:order-1042" not in prefect.read_flow_run(waiting).tags


def test_an_order_number_may_have_capital_letters(
    home: Path, prefect: SyncPrefectClient, waiting_run: WaitingRun
) -> None:
    with ThreadPoolExecutor(1) as pool:
        ending = start(pool, "PO-7")
        prefect.resume_flow_run(waiting_run("order-PO-7"), run_input={"approved": True})
        assert ending.result().is_completed()


def test_an_order_that_nobody_decides_on_is_released(home: Path, prefect_url: str, artifacts: Artifacts) -> None:
    state = order_approval("late", 10, approve_within_seconds=0.3, return_state=True)
    assert state.is_failed()
    assert state.message == "order late was released: nobody decided within 0.3 s"
    assert status(home, "late") == "released"
    assert artifacts(state)["order-late"][-1]["detail"] == "nobody decided in time"


@pytest.mark.parametrize("amount", [0, -1, float("inf"), float("nan")])
def test_an_order_with_an_impossible_amount_is_neither_reserved_nor_waited_for(
    home: Path, prefect_url: str, amount: float
) -> None:
    state = order_approval("x", amount, return_state=True)
    assert "it must be above 0" in str(state.message)
    assert not home.exists()
