"""Filters that take numbers, or make them."""

from __future__ import annotations

import re

import pytest

from events.errors import RejectedEvent
from events.filters.numbers import FILTERS
from tests.unit.events.making import evaluated

GIVEN = [
    ("'7' | int", 7),
    ("'7.9' | int(default=0)", 0),
    ("'x' | int(3)", 3),
    ("7.9 | int", 7),
    ("'1e2' | float", 100.0),
    ("'x' | float(0.5)", 0.5),
    ("n | round", 7),
    ("n | round(1)", 7.2),
    ("-3 | abs", 3),
    ("3 | abs", 3),
]


@pytest.mark.parametrize(("source", "result"), GIVEN)
def test_a_filter_gives(source: str, result: object) -> None:
    assert evaluated(source) == result


@pytest.mark.parametrize(
    "source",
    [
        "tags | abs",
        "'x' | int",
        "'x' | float",
        "'1e999' | float",
        "'9' * 40 | int",
    ],
)
def test_what_does_not_fit_is_refused_in_words(source: str) -> None:
    with pytest.raises(RejectedEvent) as caught:
        evaluated(source)
    assert caught.value.code == "template"
    assert "Traceback" not in caught.value.reason


def test_every_filter_is_tried_here() -> None:
    assert set(re.findall(r"\| (\w+)", str(GIVEN))) >= set(FILTERS)
