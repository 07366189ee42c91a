"""Whether a line of words is one of names, told from what names are usually made of and from the words below."""

from __future__ import annotations

import pytest

from sluice.loading.formats.header_words import tells


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("name", []),
        ("Product Names", ["Chair", "Table"]),
        ("customerId", ["Chair"]),
        ("order_id", ["Chair"]),
        ("Straße", ["Berlin", "Bonn"]),
        ("Bestelldatum", ["gestern", "heute"]),
        ("姓名", ["王伟", "李娜"]),
        ("x1_y", ["Chair"]),
        ("lower", ["Upper", "Title"]),
        ("code", ["A-1", "name", "B-2"]),
        ("Zuname", ["A1", "B2"]),
    ],
)
def test_a_name_is_told(name: str, values: list[str]) -> None:
    assert tells(name, values)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Paris", ["London", "Rome"]),
        ("New York", ["Paris"]),
        ("Hannover 96", ["Bayern"]),
        ("red", ["green", "blue"]),
        ("name", ["title", "city"]),
        ("snake_case", ["other_case", "x"]),
        ("camelCase", ["otherCase"]),
        ("Paris", []),
        ("this is a name of five words", ["x"]),
        ("name of the person who paid", ["x"]),
        ("Ab3", ["A1", "B2"]),
        ("", ["x"]),
    ],
)
def test_what_may_as_well_be_a_value_is_not(name: str, values: list[str]) -> None:
    assert not tells(name, values)
