"""The values of the file ledger, as the scripts write them."""

from __future__ import annotations

import pytest

from services.store.files.ledger_rows import InFlight, Row, Settlement, Stamp, State


def test_a_row_is_read_as_the_scripts_write_it() -> None:
    row = Row.parse(b"s 1-2-3 7 1767000000000 - -")
    assert (row.state, row.version, row.generation, row.at_ms) == (State.SENT, "1-2-3", 7, 1_767_000_000_000)
    assert (row.digest, row.marker) == (None, None)
    assert row.raw == b"s 1-2-3 7 1767000000000 - -", "by which a script sees that it is unchanged"
    full = Row.parse(b"d 1-2-3 7 1 digest marker")
    assert (full.state, full.digest, full.marker) == (State.DONE, "digest", "marker")


@pytest.mark.parametrize(
    "raw",
    [b"", b"s 1-2-3 7 1 -", b"s 1-2-3 7 1 - - -", b"q 1-2-3 7 1 - -", b"s 1-2-3 x 1 - -", b"s \xff 7 1 - -"],
)
def test_what_is_no_row_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - also that of the decoder
        Row.parse(raw)


def test_an_event_tells_the_generation_of_its_row() -> None:
    event_id = "my-inbox-0123-12"
    assert InFlight(event_id, b"a", "1-1-1", None, b"{}").generation == 12
    assert Settlement(event_id, b"a", State.DONE, "done").generation == 12


@pytest.mark.parametrize(
    ("later", "holds"),
    [
        (Stamp(b"server", 5, 2), True),
        (Stamp(b"server", 9, 2), True),
        (Stamp(b"server", 4, 2), False),
        (Stamp(b"server", 5, 3), False),
        (Stamp(b"another", 5, 2), False),
    ],
    ids=["same", "new-rows", "lost-rows", "closed-rows", "other-server"],
)
def test_cached_rows_hold_while_nothing_was_lost_or_closed(later: Stamp, holds: bool) -> None:
    assert Stamp(b"server", 5, 2).holds_at(later) is holds
