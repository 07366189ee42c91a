"""Every outcome is told: on the run's page, in the event's history, as a dead letter; a repetition is recognised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from config.settings import HistorySettings, JournalSettings, ResumerSettings
from events.errors import Backpressure, Refused, TransientError
from events.signal import Outcome
from services.prefect_api.run_view import RunView
from services.signals import outcome_publisher
from services.signals.outcome_publisher import OutcomePublisher, reminder_event
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters, LetterQuery
from services.store.events.history import History
from services.store.events.journal import Journal
from services.store.signals import outbox as outbox_module
from services.store.signals.outbox import Outbox
from services.store.signals.signal_keys import OUTBOX
from services.store.signals.signal_record import Mark
from services.store.signals.signals import SignalStore
from tests.support.waiting import eventually
from tests.unit.services.store.making import RECEIVED, event
from tests.unit.services.store.signals.making import R1, R2, WAIT, again, apply, signal, submitted


class Publishing:
    """A publisher, and what it sent to Prefect."""

    def __init__(self, redis: AsyncRedis, consumer: str = "one") -> None:
        self.redis = redis
        self.store = SignalStore(redis, ResumerSettings())
        self.dead = DeadLetters(redis)
        self.history = History(redis, HistorySettings())
        self.sent: list[Mapping[str, Any]] = []
        self.fails: list[Exception] = []
        self.publisher = OutcomePublisher(
            store=self.store,
            outbox=Outbox(redis, consumer=consumer),
            emit=self._emit,
            dead=self.dead,
            history=self.history,
        )

    async def all(self) -> list[Mapping[str, Any]]:
        """What was sent once the outbox is empty."""
        async with self.running():
            await eventually(self._empty)
        return self.sent

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.publisher.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _empty(self) -> bool:
        return await self.redis.xlen(OUTBOX) == 0

    async def _emit(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        if self.fails:
            raise self.fails.pop(0)
        self.sent += bodies


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "_BLOCK_SECONDS", 0.02)
    monkeypatch.setattr(outcome_publisher, "_TOGETHER_SECONDS", 0.0)


@pytest.fixture
def publishing(redis: AsyncRedis) -> Publishing:
    return Publishing(redis)


def _about(bodies: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(body["event"], body["resource"]["prefect.resource.id"]) for body in bodies]


async def test_an_applied_signal_is_told_on_the_page_of_each_of_its_runs(publishing: Publishing) -> None:
    record = await submitted(publishing.store)
    async with publishing.store.busy("x") as busy:
        assert await publishing.store.claim(record, R2, Mark(wait=WAIT), busy)
    rejected = Mark(wait=WAIT, outcome=Outcome.REJECTED, reason="does not fit")
    await publishing.store.settle(record, R2, rejected)
    await apply(publishing.store, record)
    sent = await publishing.all()
    assert _about(sent) == [
        ("sluice.signal.applied", f"prefect.flow-run.{R1}"),
        ("sluice.signal.rejected", f"prefect.flow-run.{R2}"),
    ]
    assert [body["payload"]["reason"] for body in sent] == ["applied", "does not fit"]
    assert {body["payload"]["look"] for body in sent} == {"sluice signals show s1"}
    assert await publishing.dead.count() == 0


async def test_a_signal_that_no_run_took_is_told_about_itself(publishing: Publishing) -> None:
    await publishing.store.buffer(await submitted(publishing.store), "early")
    assert _about(await publishing.all()) == [("sluice.signal.buffered", "sluice.signal.s1")]


async def test_an_unknown_run_has_no_page_to_be_told_on(publishing: Publishing) -> None:
    await publishing.store.decide(await submitted(publishing.store, run_id=R1), Outcome.UNKNOWN_RUN, "no such run")
    assert _about(await publishing.all()) == [("sluice.signal.unknown-run", "sluice.signal.s1")]


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_only_what_nobody_will_get_becomes_a_dead_letter(publishing: Publishing, outcome: Outcome) -> None:
    record = await submitted(publishing.store)
    if outcome is Outcome.BUFFERED:
        await publishing.store.buffer(record, "because")
    else:
        await publishing.store.decide(record, outcome, "because")
    await publishing.all()
    letters = await publishing.dead.search(LetterQuery(kind="signal"), limit=9)
    kept = outcome in {Outcome.REJECTED, Outcome.EXPIRED, Outcome.UNKNOWN_RUN}
    assert [(one.code, one.reason) for one in letters] == ([(outcome.value, "because")] if kept else [])
    if kept:
        assert letters[0].raw == record.signal.model_dump_json().encode(), "whole, so that it can be replayed"


async def test_the_outcome_stands_in_the_history_of_the_signals_event(publishing: Publishing) -> None:
    await Journal(publishing.redis, JournalSettings()).append([event("e1")], received=RECEIVED)
    identity = event("e1").identity
    await publishing.store.submit(signal(event_identity=identity), "event e1")
    await publishing.store.decide(await again(publishing.store), Outcome.REJECTED, "no")
    (body,) = await publishing.all()
    found = await publishing.history.get(identity)
    assert found is not None
    assert [(one.id, one.text) for one in found.signals] == [("s1", "rejected")]
    assert any("e1" in one["prefect.resource.id"] for one in body["related"])
    (letter,) = await publishing.dead.search(LetterQuery(), limit=9)
    assert letter.event_id == "e1"


@pytest.mark.parametrize(
    "error",
    [TransientError("away"), Backpressure("full"), Refused("prefect-refused", "no")],
    ids=lambda error: type(error).__name__,
)
async def test_what_could_not_be_told_is_told_later_and_the_status_says_so(
    publishing: Publishing, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(outbox_module, "_CLAIM_IDLE_SECONDS", 0.01)
    monkeypatch.setattr("services.common.backoff.random.uniform", lambda *_: 0.05)
    again_later = Publishing(publishing.redis)
    again_later.fails.append(error)
    await publishing.store.decide(await submitted(publishing.store), Outcome.REJECTED, "no")
    async with again_later.running():
        await eventually(lambda: asyncio.sleep(0, again_later.publisher.status()))
        assert str(error) in again_later.publisher.status()["degraded"]
        await eventually(again_later._empty)
        await eventually(lambda: asyncio.sleep(0, not again_later.publisher.status()))
    assert _about(again_later.sent) == [("sluice.signal.rejected", "sluice.signal.s1")]
    (letter,) = await publishing.dead.search(LetterQuery(), limit=9)
    assert letter.attempts >= 1


async def test_a_repetition_has_the_ids_of_what_was_told_before(
    publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publishing.store.decide(await submitted(publishing.store), Outcome.REJECTED, "no")
    told = await Outbox(publishing.redis, consumer="dead").read()
    await publishing.publisher._tell(told)
    first = [body["id"] for body in publishing.sent]
    await publishing.publisher._tell(told)
    assert [body["id"] for body in publishing.sent] == [*first, *first]
    assert await publishing.dead.count() == 1


async def test_each_repeated_id_is_told_as_a_duplicate_of_its_own(publishing: Publishing) -> None:
    await submitted(publishing.store)
    for _ in range(2):
        await publishing.store.submit(signal(), "test")
    sent = await publishing.all()
    assert [body["event"] for body in sent] == ["sluice.signal.duplicate"] * 2
    assert len({body["id"] for body in sent}) == 2


async def test_a_signal_that_was_forgotten_meanwhile_holds_up_nothing(publishing: Publishing) -> None:
    await publishing.store.decide(await submitted(publishing.store, "gone"), Outcome.REJECTED, "no")
    await publishing.redis.delete("sluice:signal:gone")
    await publishing.store.decide(await submitted(publishing.store, "there"), Outcome.REJECTED, "no")
    assert _about(await publishing.all()) == [("sluice.signal.rejected", "sluice.signal.there")]


def test_a_reminder_is_the_one_that_the_process_itself_would_send() -> None:
    now = datetime.now(UTC)
    run = RunView(run_id=R1, name="owl", state_id="s", state_type="PAUSED", state_name="Suspended", entered=now,
                  pause_key=WAIT, keyset={}, suspended=True)  # fmt: skip
    first, second = reminder_event(run), reminder_event(run)
    assert first["event"] == "sluice.signal.reminder"
    assert first["id"] == second["id"]
    assert first["payload"]["wait"] == WAIT
    assert reminder_event(RunView(**{**_fields(run), "pause_key": "sluice-wait-2-k"}))["id"] != first["id"]


def _fields(run: RunView) -> dict[str, Any]:
    return {name: getattr(run, name) for name in RunView.__slots__}
