"""A file is brought back for a replay, or nothing is started: asked by one process, answered by another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from config.settings import FileSettings, HistorySettings, JournalSettings
from events.errors import Refused
from events.identity import identity_of
from services.listeners.files.arriving.describe import tail
from services.store.connection import AsyncRedis
from services.store.event_transitions import EventTransitions
from services.store.events.archived_file import ArchivedFile
from services.store.events.history import History
from services.store.events.journal import Journal, JournalEntry
from services.store.events.open_effects import OPEN
from services.store.files import returns as returns_module
from services.store.files.ledger import FILES, Ledger
from services.store.files.ledger_rows import Announcement
from services.store.files.returns import Again, FileReturns, Return, ReturnAnswer
from services.store.runs.created_runs import RUN
from services.store.unreadable import noted
from tests.support.waiting import eventually
from tests.unit.services.store.making import event, name

R1 = "00000001-0000-4000-8000-000000000000"
R2 = "00000002-0000-4000-8000-000000000000"
EVENT = {
    "source": "files/inbox", "type": "sluice.file.arrived", "subject": "a.csv", "time": "2024-01-01T00:00:00Z",
    "data": {"path": "/in/a.csv"}, "fileversion": "1-2-3",
}  # fmt: skip
YES = ReturnAnswer(True)


@pytest.fixture
def returns(redis: AsyncRedis) -> FileReturns:
    return FileReturns(redis, journal=JournalSettings(), history=HistorySettings())


@pytest.fixture
def history(redis: AsyncRedis) -> History:
    return History(redis, HistorySettings())


def archived(**ended: Any) -> ArchivedFile:
    return ArchivedFile(
        at=datetime.now(UTC), fate="failed", path=b"a.csv", place=b".archive/a.csv", version="1-2-3", announced="1-2-3",
        ended={"matched": 1, "runs": [], "dead": [], **ended},
    )  # fmt: skip


async def _arrive(redis: AsyncRedis) -> str:
    """Announce a file and have its event finished, as far as the ledger is concerned; answers the event's id."""
    ledger = Ledger(redis, JournalSettings(), FileSettings())
    now = (await ledger.compare("inbox", [(b"x", "1-1-1")])).as_of_ms
    file = Announcement(b"a.csv", None, "1-2-3", tail(EVENT))
    (announced,) = await ledger.announce("inbox", [file], as_of_ms=now, received="2024-01-01T00:00:00+00:00")
    assert announced.event_id is not None
    await Journal(redis, JournalSettings()).read()
    return announced.event_id


async def _archive(redis: AsyncRedis, returns: FileReturns, **ended: Any) -> str:
    """A file whose event is finished and that was moved to its archive; answers the event's identity."""
    event_id = await _arrive(redis)
    await redis.delete(f"{FILES}inbox:events")
    await returns.keep("inbox", [(event_id, archived(**ended))])
    return identity_of("files/inbox", event_id)


async def _record(redis: AsyncRedis, run_id: str, *, rule: str = "pay", state: str | None = None) -> None:
    fields = {"e": "[]", "r": rule, "d": "flow/d", "t": f"{rule}#0"} | ({"s": state} if state else {})
    await redis.hset(RUN + run_id, mapping=fields)


@asynccontextmanager
async def archiver(returns: FileReturns, answer: ReturnAnswer) -> AsyncIterator[list[Return]]:
    """An archiver that answers what it is asked; yields what that was."""
    asked: list[Return] = []

    async def work() -> None:
        while True:
            for one in await returns.wanted("inbox"):
                asked.append(one)
                await returns.answer("inbox", one, answer)
            await asyncio.sleep(0.01)

    working = asyncio.create_task(work())
    try:
        yield asked
    finally:
        working.cancel()
        await asyncio.wait({working})


async def test_an_event_without_a_file_needs_none(redis: AsyncRedis, returns: FileReturns) -> None:
    assert not await returns.bring_back(name("order-1"), runs=[R1])
    assert not await returns.bring_back(identity_of("shop", "inbox-0123-1"), runs=[R1]), "its id only looks like one"
    assert await returns.wanted("inbox") == []
    assert event("order-1").identity == name("order-1")


async def test_a_file_that_stays_where_it_arrived_need_not_come_back(redis: AsyncRedis, returns: FileReturns) -> None:
    identity = identity_of("files/inbox", await _arrive(redis))
    await redis.delete(f"{FILES}inbox:events")
    assert not await returns.bring_back(identity, runs=[R1]), "it was finished, and never archived"


async def test_an_unfinished_event_waits_for_the_runs_that_start_again(redis: AsyncRedis, returns: FileReturns) -> None:
    identity = identity_of("files/inbox", await _arrive(redis))
    await redis.hset(OPEN + identity, "ship#0", "")
    await _record(redis, R1)
    assert not await returns.bring_back(identity, runs=[R1])
    assert "pay#0" in await EventTransitions(redis, retention_seconds=60).open_effects(identity)


async def test_an_archived_file_is_asked_for_and_is_there_on_return(redis: AsyncRedis, returns: FileReturns) -> None:
    identity = await _archive(redis, returns)
    again = Again(only=("pay",), salt="s1")
    async with archiver(returns, YES) as asked:
        assert await returns.bring_back(identity, runs=[R1], again=again, by="ann")
    assert [(one.runs, one.again, one.by) for one in asked] == [((R1,), again, "ann")]
    assert await returns.wanted("inbox") == []


async def test_an_answer_of_an_earlier_request_does_not_count(redis: AsyncRedis, returns: FileReturns) -> None:
    identity = await _archive(redis, returns)
    async with archiver(returns, YES):
        assert await returns.bring_back(identity, runs=[R1])
    async with archiver(returns, ReturnAnswer(False, "somebody has deleted it")):
        with pytest.raises(Refused, match="nothing was started: somebody has deleted it") as raised:
            await returns.bring_back(identity, runs=[R1])
    assert raised.value.code == "file-not-returned"


async def test_where_no_archiver_answers_nothing_is_started_and_nothing_asked_any_more(
    redis: AsyncRedis, returns: FileReturns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns_module, "ANSWER_SECONDS", 0.02)
    identity = await _archive(redis, returns)
    with pytest.raises(Refused, match="watch inbox") as raised:
        await returns.bring_back(identity, runs=[R1])
    assert raised.value.code == "no-archiver"
    assert await returns.wanted("inbox") == [], "an archiver that comes later moves nothing"


async def test_an_archiver_that_has_taken_the_request_is_waited_for(
    redis: AsyncRedis, returns: FileReturns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns_module, "ANSWER_SECONDS", 0.05)
    identity = await _archive(redis, returns)
    asking = asyncio.create_task(returns.bring_back(identity, runs=[R1]))
    (asked,) = await eventually(lambda: returns.wanted("inbox"))
    await returns.answer("inbox", asked, YES)
    assert await asking


async def test_garbage_for_an_answer_is_noted_and_not_taken_for_one(
    redis: AsyncRedis, returns: FileReturns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns_module, "ANSWER_SECONDS", 0.05)
    identity = await _archive(redis, returns)
    asking = asyncio.create_task(returns.bring_back(identity, runs=[R1]))
    (asked,) = await eventually(lambda: returns.wanted("inbox"))
    noted.take()
    await redis.set(f"{FILES}inbox:returned:{asked.event_id}", '["yes", ""]')
    with pytest.raises(Refused):
        await asking
    assert f"{FILES}inbox:returned:{asked.event_id}".encode() in noted.take()[0]


async def test_runs_that_have_gone_on_meanwhile_need_no_file(redis: AsyncRedis, returns: FileReturns) -> None:
    identity = await _archive(redis, returns)
    await _record(redis, R1, state="2000 RUNNING")
    assert await returns.bring_back(identity, runs=[R1], since_ms=1000)
    assert await returns.wanted("inbox") == []
    assert not await returns.outdated(Return(event_id="x", runs=(R1,), since_ms=2000))
    assert not await returns.outdated(Return(event_id="x", runs=(R1, R2)))


async def test_a_request_that_is_garbage_is_passed_over_and_noted(redis: AsyncRedis, returns: FileReturns) -> None:
    noted.take()
    await redis.hset(f"{FILES}inbox:wanted", mapping={"x": "no json", "y": '{"event_id": "y", "extra": 1}'})
    assert await returns.wanted("inbox") == []
    assert noted.take()[0] == {f"{FILES}inbox:wanted".encode()}


async def test_an_event_that_is_judged_again_is_journalled_as_it_was(redis: AsyncRedis, returns: FileReturns) -> None:
    event_id = await _arrive(redis)
    assert await returns.judge_again("inbox", event_id, Again(only=("pay",), salt="s1"))
    (entry,) = await Journal(redis, JournalSettings()).read()
    assert isinstance(entry, JournalEntry)
    assert (entry.event.id, entry.only, entry.salt) == (event_id, ("pay",), "s1")
    assert (entry.received, entry.listener) == ("2024-01-01T00:00:00+00:00", "files:inbox")
    assert not await returns.judge_again("inbox", "inbox-unknown-1", Again())


async def test_an_event_that_was_changed_is_journalled_with_the_change(redis: AsyncRedis, returns: FileReturns) -> None:
    event_id = await _arrive(redis)
    changed = json.dumps({"specversion": "1.0", "id": event_id, **EVENT, "data": {"path": "/in/b.csv"}})
    assert await returns.judge_again("inbox", event_id, Again(event=changed))
    (entry,) = await Journal(redis, JournalSettings()).read()
    assert isinstance(entry, JournalEntry)
    assert entry.event.data == {"path": "/in/b.csv"}


RUNS_AND_LETTERS = {
    "matched": 3,
    "runs": [{"run_id": R1, "state_type": "COMPLETED"}, {"run_id": R2, "state_type": "FAILED"}, {"run_id": "gone"}],
    "dead": [{"letter_id": "l1", "rule": "load"}],
}


@pytest.mark.parametrize(
    ("again", "stay"),
    [
        (None, {"pay#0", "ship#0", "load!"}),
        (Again(), {"pay#0", "ship#0", "load!"}),
        (Again(salt="s1"), set()),
        (Again(salt="s1", only=("pay",)), {"ship#0", "load!"}),
        (Again(salt="s1", only=("load",)), {"pay#0", "ship#0"}),
    ],
    ids=["runs", "repair", "rerun", "rerun-of-pay", "rerun-of-load"],
)
async def test_effects_that_are_not_repeated_stay_as_they_ended(
    redis: AsyncRedis, returns: FileReturns, again: Again | None, stay: set[str]
) -> None:
    await _record(redis, R1)
    await _record(redis, R2, rule="ship")
    await returns.reopen("inbox", Return(event_id="inbox-x-1", again=again), archived(**RUNS_AND_LETTERS))
    fields = await redis.hgetall(OPEN + identity_of("files/inbox", "inbox-x-1"))
    kept = {field.decode(): value[:1] for field, value in fields.items() if value[:1] in {b"+", b"-", b"!"}}
    assert set(kept) == stay
    assert kept.get("pay#0", b"+") == b"+"
    assert kept.get("ship#0", b"-") == b"-"
    assert kept.get("load!", b"!") == b"!"


async def test_the_last_archiving_of_a_file_is_known(returns: FileReturns, redis: AsyncRedis) -> None:
    identity = await _archive(redis, returns)
    event_id = identity.rpartition("@")[0]
    await returns.keep("inbox", [])
    found = await returns.archived("inbox", event_id)
    assert found is not None
    assert found.place == b".archive/a.csv"
    assert await returns.archived("inbox", "inbox-unknown-1") is None


async def test_a_remark_stands_in_the_events_history(returns: FileReturns, redis: AsyncRedis, history: History) -> None:
    event_id = await _arrive(redis)
    await returns.note("inbox", event_id, "brought back")
    found = await history.get(identity_of("files/inbox", event_id))
    assert found is not None
    assert [note.text for note in found.notes] == ["brought back"]
