"""The file ledger's steps: each is atomic, and rests on what its caller has seen."""

from __future__ import annotations

import json

import pytest

from config.settings import FileSettings, JournalSettings
from events.event import parse_event
from events.identity import identity_of
from events.untrusted_json import Limits
from services.listeners.files.arriving.describe import tail
from services.store.connection import AsyncRedis
from services.store.events.journal import Journal
from services.store.events.known_events import KnownEvents
from services.store.files.ledger import Ledger, watch_of
from services.store.files.ledger_rows import Announcement, Row, Settlement, State

EVENT = {
    "source": "files/inbox", "type": "sluice.file.arrived", "subject": "a.csv", "time": "2024-01-01T00:00:00Z",
    "data": {"path": "/in/a.csv"}, "fileversion": "1-2-3",
}  # fmt: skip


@pytest.fixture
def ledger(redis: AsyncRedis) -> Ledger:
    return Ledger(redis, JournalSettings(), FileSettings())


def _announcement(
    path: bytes = b"a.csv", version: str = "1-2-3", expected: Row | None = None, digest: str | None = None
) -> Announcement:
    return Announcement(path, expected, version, tail(EVENT), digest)


async def _announce(ledger: Ledger, *files: Announcement, as_of_ms: int | None = None, content: bool = False) -> list:
    now = (await ledger.compare("inbox", [(b"x", "1-1-1")])).as_of_ms
    return await ledger.announce(
        "inbox",
        files,
        as_of_ms=now if as_of_ms is None else as_of_ms,
        received="2024-01-01T00:00:00+00:00",
        remember_content=content,
    )


async def _row(ledger: Ledger, path: bytes = b"a.csv") -> Row:
    (row,) = await ledger.rows("inbox", [path])
    assert row is not None
    return row


async def test_an_announcement_is_a_row_and_an_entry_that_the_journal_reads(ledger: Ledger, redis: AsyncRedis) -> None:
    (announced,) = await _announce(ledger, _announcement())
    journal = Journal(redis, JournalSettings())
    (entry,) = await journal.read()
    assert entry.event.id == announced.event_id
    assert entry.listener == "files:inbox"
    assert entry.received == "2024-01-01T00:00:00+00:00"
    assert entry.event.extensions == {"fileversion": "1-2-3"}
    identity = identity_of("files/inbox", announced.event_id)
    assert entry.event.identity == identity
    assert await KnownEvents(redis).position(identity) == entry.position
    row = await _row(ledger)
    assert (row.state, row.version, row.generation) == (State.SENT, "1-2-3", 1)
    raw = (await redis.xrange("sluice:journal"))[0][1][b"event"]
    assert parse_event(raw, limits=Limits(), from_outside=False).id == announced.event_id


async def test_two_who_saw_the_same_row_announce_once(ledger: Ledger, redis: AsyncRedis) -> None:
    first, second = [(await _announce(ledger, _announcement()))[0] for _ in range(2)]
    assert first.event_id is not None
    assert second.event_id is None
    assert await redis.xlen("sluice:journal") == 1


async def test_a_decision_that_rests_on_rows_of_long_ago_is_without_effect(ledger: Ledger) -> None:
    now = (await ledger.compare("inbox", [(b"x", "1-1-1")])).as_of_ms
    (late,) = await _announce(ledger, _announcement(), as_of_ms=now - 31 * 60 * 1000)
    assert late.event_id is None
    assert await ledger.rows("inbox", [b"a.csv"]) == [None]


async def test_the_id_follows_from_the_file_its_version_and_the_generation(ledger: Ledger) -> None:
    (first,) = await _announce(ledger, _announcement())
    (other,) = await _announce(ledger, _announcement(version="1-2-4", expected=await _row(ledger)))
    watch, base, generation = first.event_id.rsplit("-", 2)
    assert (watch, generation) == ("inbox", "1")
    assert other.event_id.endswith("-2")
    assert base not in other.event_id
    assert watch_of(first.event_id) == "inbox"
    assert watch_of("0b1c2d3e-0000-4000-8000-00000000abcd") != "inbox"
    assert watch_of("order-7") is None


async def test_rows_are_compared_with_what_is_seen(ledger: Ledger) -> None:
    await _announce(ledger, _announcement(b"same"), _announcement(b"other"), _announcement(b"pre"))
    rows, _ = await ledger.compare(
        "inbox", [(b"none", "1-2-3"), (b"same", "1-2-3"), (b"other", "1-2-4"), (b"pre", "1-2-33"), (b"same", "1-2-3")]
    )
    assert rows[0] is None
    assert rows[1] is True
    assert isinstance(rows[2], Row)
    assert isinstance(rows[3], Row)
    assert rows[4] is True


async def test_a_row_follows_its_file_only_if_it_is_what_was_seen(ledger: Ledger) -> None:
    await _announce(ledger, _announcement())
    row = await _row(ledger)
    assert await ledger.adopt("inbox", [(b"a.csv", row, "1-2-9")]) == [True]
    assert (await _row(ledger)).version == "1-2-9"
    assert await ledger.adopt("inbox", [(b"a.csv", row, "1-2-10")]) == [False]
    assert (await _row(ledger)).version == "1-2-9"


async def test_an_event_of_another_source_ends_no_file_whatever_its_id(ledger: Ledger) -> None:
    (announced,) = await _announce(ledger, _announcement())
    raw = json.dumps({"ok": True}).encode()
    for source in ("attacker", "files/other", "http"):
        assert await ledger.finish([(identity_of(source, announced.event_id), raw)]) == set()
    assert (await ledger.due("inbox", 10))[0] == []


async def _finish(ledger: Ledger, event_id: str, *, ok: bool = True) -> None:
    identity = identity_of("files/inbox", event_id)
    raw = json.dumps({"identity": identity, "ok": ok}).encode()
    assert await ledger.finish([(identity, raw)]) == {"inbox"}


async def test_a_file_in_flight_ends_once(ledger: Ledger) -> None:
    (announced,) = await _announce(ledger, _announcement())
    await _finish(ledger, announced.event_id)
    (due,), _ = await ledger.due("inbox", 10)
    assert (due.event_id, due.path, due.announced) == (announced.event_id, b"a.csv", "1-2-3")
    assert due.row is not None
    assert due.generation == due.row.generation == 1
    for _ in range(2):
        await ledger.settle("inbox", [Settlement(announced.event_id, b"a.csv", State.DONE, "done")])
    assert await ledger.due("inbox", 10) == ([], 0)
    assert (await _row(ledger)).state is State.DONE
    numbers = await ledger.numbers("inbox")
    assert (numbers["done"], numbers["in_flight"], numbers["due"]) == (1, 0, 0)


async def test_the_end_of_an_event_that_is_no_files_is_passed_over(ledger: Ledger) -> None:
    assert await ledger.finish([("order-7", b"{}"), ("a-b-1", b"{}"), ("0b1c-4000-8000", b"{}")]) == set()


async def test_the_end_of_an_earlier_version_leaves_the_later_ones_row_alone(ledger: Ledger) -> None:
    (first,) = await _announce(ledger, _announcement())
    await _announce(ledger, _announcement(version="1-2-4", expected=await _row(ledger)))
    await _finish(ledger, first.event_id)
    await ledger.settle("inbox", [Settlement(first.event_id, b"a.csv", State.CLOSED, "done")])
    row = await _row(ledger)
    assert (row.state, row.version) == (State.SENT, "1-2-4")


async def test_what_is_in_flight_is_not_closed_and_what_has_ended_is(ledger: Ledger) -> None:
    (announced,) = await _announce(ledger, _announcement())
    assert await ledger.close("inbox", [(b"a.csv", await _row(ledger))]) == 0
    await _finish(ledger, announced.event_id)
    await ledger.settle("inbox", [Settlement(announced.event_id, b"a.csv", State.DONE, "done")])
    before = await ledger.stamp("inbox")
    row = await _row(ledger)
    assert await ledger.close("inbox", [(b"a.csv", row)]) == 1
    assert await ledger.close("inbox", [(b"a.csv", row)]) == 0
    closed = await _row(ledger)
    assert closed.state is State.CLOSED
    assert not before.holds_at(await ledger.stamp("inbox"))
    assert (await ledger.compare("inbox", [(b"a.csv", "1-2-3")])).rows[0] == closed
    (again,) = await _announce(ledger, _announcement(expected=closed))
    assert again.event_id not in {None, announced.event_id}
    assert await ledger.forget("inbox", [(b"a.csv", closed)]) == 0
    assert await ledger.forget("inbox", [(b"a.csv", await _row(ledger))]) == 1


async def test_remembered_content_is_put_away_without_an_event(ledger: Ledger, redis: AsyncRedis) -> None:
    (first,) = await _announce(ledger, _announcement(digest="d1"), content=True)
    await _finish(ledger, first.event_id)
    end = Settlement(first.event_id, b"a.csv", State.CLOSED, "done", remember_content=True)
    await ledger.settle("inbox", [end])
    closed = await _row(ledger)
    (same,) = await _announce(ledger, _announcement(version="5-2-9", expected=closed, digest="d1"), content=True)
    assert same.same_content
    assert await redis.xlen("sluice:journal") == 1
    ((due,), _) = await ledger.due("inbox", 10)
    assert json.loads(due.finished) == {"ok": True, "same": True}
    await ledger.settle("inbox", [Settlement(due.event_id, b"a.csv", State.CLOSED, "done")])
    closed = await _row(ledger)
    (other,) = await _announce(ledger, _announcement(version="6-2-9", expected=closed, digest="d2"), content=True)
    assert not other.same_content
    assert await redis.xlen("sluice:journal") == 2


async def test_every_row_is_walked(ledger: Ledger) -> None:
    paths = [b"%d.csv" % number for number in range(1500)] + [b"caf\xe9 \n"]
    await _announce(ledger, *(_announcement(path) for path in paths))
    found = [path async for chunk in ledger.every_row("inbox") for path, _ in chunk]
    assert set(found) == set(paths)
    assert await ledger.size("inbox") == len(paths)


async def test_the_root_is_remembered(ledger: Ledger) -> None:
    assert await ledger.root("inbox") is None
    await ledger.set_root("inbox", "1-2-3")
    assert await ledger.root("inbox") == "1-2-3"
