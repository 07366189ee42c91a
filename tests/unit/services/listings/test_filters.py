"""Filters as the stores take them, the same for a command and a call of the API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone

import pytest

from events.errors import ConfigError
from events.signal import Outcome, ResumeSignal
from services.listings.filters import EventFilter, LetterFilter, Period, RunFilter, SignalFilter
from services.store.signals.signal_record import SignalRecord

AT = datetime(2026, 12, 1, 12, tzinfo=UTC)


RECORD = SignalRecord(
    signal=ResumeSignal(id="s", key="k", sent=AT), origin="test", place=1, received=AT, status=Outcome.APPLIED.value,
    reason="", decided=AT, repeats=0, marks={}, log=(),
)  # fmt: skip


@pytest.fixture
def _far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "XXX+5")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_far_from_utc")
def test_a_time_without_a_zone_is_utc() -> None:
    eastern = AT.astimezone(timezone(timedelta(hours=-5)))
    assert Period(since=AT.replace(tzinfo=None)).in_seconds() == Period(since=eastern).in_seconds()


@pytest.mark.parametrize("year", [1, 1999])
def test_a_time_before_anything_happened_is_refused(year: int) -> None:
    with pytest.raises(ConfigError, match="is no time that anything could have happened at"):
        EventFilter(until=datetime(year, 6, 1, tzinfo=UTC)).query()


@pytest.mark.parametrize("asked", [EventFilter(type="["), EventFilter(subject="{"), LetterFilter(source="[")])
def test_a_bad_glob_is_refused(asked: EventFilter | LetterFilter) -> None:
    with pytest.raises(ConfigError):
        asked.query()


def test_a_query_has_what_the_filter_says_and_where_a_page_begins() -> None:
    query = EventFilter(type="a", failed=True, since=AT).query(rule="r", before="1-0")
    assert (query.type, query.failed, query.since, query.rule, query.before) == ("a", True, AT.timestamp(), "r", "1-0")
    letters = LetterFilter(event="e", kind="job").query(before=(1, "x"))
    assert (letters.event_id, letters.kind, letters.before) == ("e", "job", (1, "x"))
    runs = RunFilter(rule="r", tag=["t"], state=["late"], until=AT).query()
    assert (runs.tags, runs.states, runs.until) == (("t", "rule:r"), ("late",), AT)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (SignalFilter(), True),
        (SignalFilter(outcome="applied", key="k"), True),
        (SignalFilter(outcome="late"), False),
        (SignalFilter(key="other"), False),
        (SignalFilter(event="e"), False),
        (SignalFilter(since=AT), True),
        (SignalFilter(until=AT), False),
    ],
)
def test_a_signal_matches_each_criterion(asked: SignalFilter, found: bool) -> None:
    assert asked.matches(RECORD) is found


@pytest.mark.parametrize("kind", [EventFilter, RunFilter, SignalFilter, LetterFilter])
def test_nothing_has_to_be_given(kind: type) -> None:
    assert all(field.default in {None, False} for field in fields(kind))
