"""A signal as it is stored: read back whole, and refused where anything in it is not Sluice's."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from events.signal import Outcome
from services.store.signals.signal_record import Answered, LogLine, Mark, from_ms, record_from, to_ms
from services.store.unreadable import FAULTS
from tests.unit.services.store.signals.making import R1, WAIT, signal

T0 = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
FIELDS: dict[bytes, bytes] = {
    b"signal": signal(ttl_seconds=60).model_dump_json().encode(),
    b"origin": "HTTP ü".encode(),
    b"place": b"7",
    b"received": str(to_ms(T0)).encode(),
    b"status": b"buffered",
    b"reason": b"early",
    b"log": json.dumps([to_ms(T0), "buffered", "early"]).encode() + b"\n",
}


def test_a_record_is_read_as_it_was_written() -> None:
    mark = Mark(wait=WAIT, outcome=Outcome.APPLIED, reason="applied")
    more = {b"decided": b"1767000000000", b"repeats": b"2", f"run:{R1}".encode(): mark.model_dump_json().encode()}
    record = record_from({**FIELDS, **more})
    assert (record.signal.id, record.origin, record.place, record.repeats) == ("s1", "HTTP ü", 7, 2)
    assert record.received == T0
    assert record.decided == from_ms(1_767_000_000_000)
    assert record.marks == {R1: mark}
    assert record.log == (LogLine(T0, "buffered", "early"),)


@pytest.mark.parametrize(("status", "is_open"), [("received", True), *((one, one == "buffered") for one in Outcome)])
def test_only_a_received_or_a_buffered_signal_may_still_change(status: str, is_open: bool) -> None:
    assert record_from({**FIELDS, b"status": status.encode()}).open is is_open


def test_it_expires_by_the_time_at_which_it_was_received() -> None:
    assert record_from(FIELDS).expires == T0 + timedelta(seconds=60)


@pytest.mark.parametrize(
    "garbage",
    [
        {b"status": b"well"},
        {b"signal": b"{}"},
        {b"place": b"first"},
        {b"received": b"yesterday"},
        {b"received": b"9" * 30},
        {b"log": b"no json"},
        {b"log": b"[1]"},
        {b"reason": b"\xff"},
        {b"run:x": b"{}"},
    ],
    ids=str,
)
def test_garbage_in_any_field_is_a_fault_that_readers_know(garbage: dict[bytes, bytes]) -> None:
    with pytest.raises(FAULTS):
        record_from({**FIELDS, **garbage})


@pytest.mark.parametrize("name", FIELDS)
def test_a_record_without_one_of_its_fields_is_no_signal(name: bytes) -> None:
    with pytest.raises(FAULTS):
        record_from({field: value for field, value in FIELDS.items() if field != name})


def test_an_answered_wait_is_read_as_it_was_written() -> None:
    answered = Answered(run_id=R1, entered=T0, left=T0 + timedelta(seconds=1), by="ann")
    assert Answered.parse(answered.to_json().encode()) == answered


@pytest.mark.parametrize("entry", [["r", 1, 2], [1, 1, 2, "ann"], ["r", "x", 2, "ann"], ["r", 1, 2, None], {}])
def test_what_is_no_answered_wait_is_refused(entry: Any) -> None:
    with pytest.raises(FAULTS):
        Answered.parse(json.dumps(entry).encode())
