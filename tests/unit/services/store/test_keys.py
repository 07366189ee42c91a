"""The declarations of keys: which one a name falls under, and what their checks let through."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.store.keys import Key, KeyList, is_number, is_object, is_position, is_uuid, is_well, pair, scored


def test_of_two_patterns_that_fit_the_one_that_says_more_is_meant() -> None:
    keys = KeyList([Key("a:*", "string", "x", "y"), Key("a:*:token", "string", "z", "y")])
    assert keys.of(b"a:b") == Key("a:*", "string", "x", "y")
    assert keys.of(b"a:b:token") == Key("a:*:token", "string", "z", "y")
    assert keys.of(b"b") is None


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (is_number, [b"0", b"-7", b"999999999999999999"], [b"", b"01", b"1.0", b"-", b"9999999999999999999"]),
        (is_position, [b"0-0", b"1700000000000-5"], [b"1", b"1-", b"x-0", b"999999999999999-0"]),
        (is_uuid, [b"b31b9f74-0000-4000-8000-000000000000"], [b"b31b", b"\xff"]),
        (is_object, [b"{}"], [b"[]", b"null", b"{"]),
    ],
)
def test_a_check_takes_what_sluice_writes_and_nothing_else(
    check: Callable[[bytes], object], good: list[bytes], bad: list[bytes]
) -> None:
    for raw in good:
        check(raw)
    for raw in bad:
        with pytest.raises((ValueError, TypeError)):
            check(raw)


def test_members_and_fields_are_checked_with_their_scores_and_values() -> None:
    scored()(b"member", 1.0)
    with pytest.raises(ValueError, match="finite"):
        scored()(b"member", float("inf"))
    pair(is_uuid, is_number)(b"b31b9f74-0000-4000-8000-000000000000", b"1")
    with pytest.raises(ValueError, match="whole number"):
        pair(bytes, is_number)(b"any", b"x")


def test_a_list_that_was_not_read_whole_is_not_known_to_be_well() -> None:
    declared = Key("a", "list", "x", "y", is_number)
    assert is_well(declared, [b"1", b"2"], page=2)
    assert not is_well(declared, [b"1", b"x"], page=2)
    assert not is_well(declared, [b"1"] * 3, page=2)
