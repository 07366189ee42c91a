"""An event is found by whatever somebody has of it: an id, the start of one, or its file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from config.settings import HistorySettings, JournalSettings, ResumerSettings
from events.dead_letter import DeadLetter
from events.errors import NotFound, Refused
from events.event import Event
from events.identity import identity_of
from events.signal import ResumeSignal
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters
from services.store.event_finder import EventFinder
from services.store.event_transitions import EventTransitions, Made
from services.store.events.history import History
from services.store.events.journal import Journal
from services.store.signals.signals import SignalStore
from tests.unit.services.store.making import RECEIVED, dispatch, event, name

RUN = "abcdef01-0000-4000-8000-000000000000"
NOW = datetime.now(UTC)


@pytest.fixture
def finder(redis: AsyncRedis) -> EventFinder:
    return EventFinder(redis, History(redis, HistorySettings()))


async def _journal(redis: AsyncRedis, *events: Event) -> list[str]:
    appended = await Journal(redis, JournalSettings()).append(events, received=RECEIVED)
    return [one.position for one in appended]


def _file(id_: str, subject: str, watch: str = "/in") -> Event:
    data = {"path": f"{watch}/{subject}", "name": subject.rpartition("/")[2]}
    return Event(id=f"inbox-{id_}-1", source="files/inbox", type="sluice.file.arrived", subject=subject,
                 time=NOW, data=data)  # fmt: skip


def _letter(**fields: Any) -> DeadLetter:
    own = {"kind": "event", "code": "x", "reason": "x", "source": "shop", "raw": b"{}"}
    return DeadLetter(id="letter-1", first_failed=NOW, last_failed=NOW, **(own | fields))


async def test_an_event_is_found_by_its_own_id(redis: AsyncRedis, finder: EventFinder) -> None:
    await _journal(redis, event("order-1"), event("order-12"))
    assert await finder.find("order-1") == name("order-1"), "a whole id wins over the start of another one"


async def test_of_events_with_one_id_the_source_chooses(redis: AsyncRedis, finder: EventFinder) -> None:
    other = Event(id="order-1", source="bank", type="order", time=NOW)
    await _journal(redis, event("order-1"), other)
    with pytest.raises(Refused, match="--source"):
        await finder.find("order-1")
    assert await finder.find("order-1", "bank") == other.identity
    with pytest.raises(NotFound):
        await finder.find("order-1", "nobody")


async def test_a_run_a_letter_and_a_signal_lead_to_their_event(redis: AsyncRedis, finder: EventFinder) -> None:
    (position,) = await _journal(redis, event("order-1"))
    made = dispatch(event("order-1"), position)
    await EventTransitions(redis, retention_seconds=60).created([Made("0-1", made, RUN)])
    await DeadLetters(redis).add(_letter(event_id="order-1", identity=name("order-1")))
    signal = ResumeSignal(id="signal-1", key="k", sent=NOW, event_identity=name("order-1"))
    await SignalStore(redis, ResumerSettings()).submit(signal, "test")
    for known in (RUN, "letter-1", "signal-1", "abcd", "lett", "sign", "orde"):
        assert await finder.find(known) == name("order-1"), known


async def test_a_letter_that_knows_only_the_id_of_its_event_leads_to_it(redis: AsyncRedis, finder: EventFinder) -> None:
    await _journal(redis, event("order-1"))
    await DeadLetters(redis).add(_letter(event_id="order-1"))
    assert await finder.find("letter-1") == name("order-1")


async def test_what_no_event_led_to_says_where_to_look_instead(redis: AsyncRedis, finder: EventFinder) -> None:
    await DeadLetters(redis).add(_letter(kind="message"))
    await SignalStore(redis, ResumerSettings()).submit(ResumeSignal(id="signal-1", key="k", sent=NOW), "test")
    with pytest.raises(NotFound, match="sluice dead show letter-1"):
        await finder.find("letter-1")
    with pytest.raises(NotFound, match="sluice signals show signal-1"):
        await finder.find("signal-1")


@pytest.mark.parametrize(
    "asked", ["/in/sub/a.csv", "/in/archive/sub/a.csv", "sub/a.csv", "a.csv", "/in/x/../sub/a.csv"]
)
async def test_the_newest_event_of_a_file_is_found_by_its_path_or_name(
    redis: AsyncRedis, finder: EventFinder, asked: str
) -> None:
    newest = _file("2", "sub/a.csv")
    await _journal(redis, _file("1", "sub/a.csv"), newest, _file("3", "b.csv"), _file("4", "a.csv.gz"))
    assert await finder.find(asked) == newest.identity


async def test_a_file_is_looked_for_in_the_whole_journal(
    redis: AsyncRedis, finder: EventFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.store.event_finder._PAGE", 2)
    file = _file("1", "a.csv")
    await _journal(redis, file, *(event(f"e{number}") for number in range(6)))
    assert await finder.find("a.csv") == file.identity


async def test_an_event_that_only_says_it_is_of_a_file_is_not_found_by_it(
    redis: AsyncRedis, finder: EventFinder
) -> None:
    await _journal(redis, event("e1", path="/in/a.csv", name="a.csv"))
    with pytest.raises(NotFound, match=r"nothing is called 'a\.csv'"):
        await finder.find("a.csv")


async def test_a_beginning_that_several_share_names_some_of_them(redis: AsyncRedis, finder: EventFinder) -> None:
    await _journal(redis, *(event(f"order-{number}") for number in range(8)))
    with pytest.raises(Refused, match=r"8 events are meant by 'order'.* and 3 more") as raised:
        await finder.find("order")
    assert raised.value.code == "ambiguous"


@pytest.mark.parametrize("asked", ["ord", "order-9", "*", "order*", ""])
async def test_what_nothing_is_called_is_not_found(redis: AsyncRedis, finder: EventFinder, asked: str) -> None:
    await _journal(redis, event("order-1"))
    with pytest.raises(NotFound):
        await finder.find(asked)


async def test_an_identity_is_of_one_source(redis: AsyncRedis, finder: EventFinder) -> None:
    await _journal(redis, event("order-1"))
    assert await finder.find("order-1") == identity_of("shop", "order-1")
