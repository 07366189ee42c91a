"""What cannot be read is passed over or asked for again, and noted under its key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.store.keys import is_number
from services.store.unreadable import UnreadableKey, note_error, noted, readable, readable_one, reading


@pytest.fixture(autouse=True)
def _nothing_noted() -> Iterator[None]:
    noted.take()
    yield
    noted.take()


def test_what_can_be_read_is_read_in_order_and_the_rest_is_noted() -> None:
    assert list(readable("key", is_number, [b"1", b"x", b"2"])) == [1, 2]
    assert noted.take() == ({b"key"}, False)
    assert list(readable(lambda row: f"key {row.decode()}", is_number, [b"x"])) == []
    assert noted.take() == ({b"key x"}, False)


def test_a_value_that_is_missing_is_no_fault() -> None:
    assert readable_one("key", is_number, b"7") == 7
    assert readable_one("key", is_number, None) is None
    assert noted.take() == (set(), False)
    assert readable_one("key", is_number, b"x") is None
    assert noted.take() == ({b"key"}, False)


def test_a_reader_that_cannot_go_on_is_to_ask_again() -> None:
    with pytest.raises(UnreadableKey, match="'key'"), reading("key"):
        is_number(b"x")
    assert noted.take() == ({b"key"}, False)


def test_an_error_of_a_script_names_its_key_and_others_name_none() -> None:
    note_error("WRONGTYPE key=sluice:open:a%20b holds a list instead of a hash")
    note_error("WRONGTYPE Operation against a key holding the wrong kind of value")
    assert noted.take() == ({b"sluice:open:a b"}, True)
