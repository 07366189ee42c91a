"""The tests behind `is`."""

from __future__ import annotations

import re

import pytest

from events.errors import RejectedEvent
from events.filters.tests import TESTS
from tests.unit.events.making import evaluated

SAID = [
    ("n is number", True),
    ("true is number", False),
    ("true is boolean", True),
    ("true is true", True),
    ("1 is true", False),
    ("false is false", True),
    ("n is float", True),
    ("3 is integer", True),
    ("name is string", True),
    ("map is mapping", True),
    ("tags is sequence", True),
    ("tags is list", True),
    ("odd[1] is none", True),
    ("map.z is undefined", True),
    ("map.x is defined", True),
    ("4 is even", True),
    ("4 is odd", False),
    ("9 is divisibleby(3)", True),
    ("'b' is in(tags)", True),
    ("tags is containing('a')", True),
    ("path is endingwith('.gz')", True),
    ("path is startingwith('/in/')", True),
    ("path is matching('/in/*/Sales *')", True),
    ("path is not matching('*.csv')", True),
    ("3 is ge(3)", True),
    ("3 is gt(3)", False),
    ("3 is le(3)", True),
    ("3 is lt(4)", True),
    ("3 is ne(4)", True),
    ("3 is equalto(3)", True),
    ("3 is eq(3)", True),
    ("true is number", False),
    ("3 is float", False),
    ("0 is false", False),
    ("name is none", False),
]


@pytest.mark.parametrize(("source", "result"), SAID)
def test_a_test_says(source: str, result: bool) -> None:
    assert evaluated(source) is result


@pytest.mark.parametrize(
    "source",
    [
        "path is matching('[')",
        "map.z is matching('*')",
        "3 is divisibleby(0)",
        "name is even",
        "n is startingwith('7')",
        "name is gt(3)",
        "3 is in(4)",
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(source: str) -> None:
    with pytest.raises(RejectedEvent) as caught:
        evaluated(source)
    assert caught.value.code == "template"


def test_every_test_is_tried_here() -> None:
    assert set(re.findall(r" is (\w+)", str(SAID))) >= set(TESTS)
