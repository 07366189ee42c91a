"""Filters that take texts, or make them."""

from __future__ import annotations

import re

import pytest

from events.errors import RejectedEvent
from events.filters.texts import FILTERS
from tests.unit.events.making import evaluated

GIVEN = [
    ("path | basename", "Sales 2026.csv.gz"),
    ("path | dirname", "/in/box"),
    ("path | stem", "Sales 2026.csv"),
    ("path | suffix", ".gz"),
    ("'.hidden' | suffix", ""),
    ("'.hidden' | stem", ".hidden"),
    ("path | basename | slug", "sales-2026-csv-gz"),
    ("name | upper", "STRASSE"),
    ("'ÀB' | lower", "àb"),
    ("'the end' | capitalize", "The end"),
    ("'the end' | title", "The End"),
    ("'  x ' | trim", "x"),
    ("'a,b' | split(',')", ["a", "b"]),
    ("'a b' | split", ["a", "b"]),
    ("'aXbX' | replace('X', '--')", "a--b--"),
    ("'abcdef' | truncate(4)", "abc…"),
    ("'abc' | truncate(4)", "abc"),
    ("at | date", "2026-03-01"),
    ("at | date('%d.%m.%Y %H:%M')", "01.03.2026 12:30"),
    ("5 | string", "5"),
    ("map | tojson", '{"x": 1, "y": 2}'),
]


@pytest.mark.parametrize(("source", "result"), GIVEN)
def test_a_filter_gives(source: str, result: object) -> None:
    assert evaluated(source) == result


@pytest.mark.parametrize(
    "source",
    [
        "n | upper",
        "'yesterday' | date",
        "at | date('%1000000000d')",
        "at | date('%-d%_')",
        "name | replace('', 'x')",
        "map.z | upper",
        "map.z | tojson",
    ],
)
def test_what_does_not_fit_is_refused_in_words(source: str) -> None:
    with pytest.raises(RejectedEvent) as caught:
        evaluated(source)
    assert caught.value.code == "template"
    assert "Traceback" not in caught.value.reason


def test_every_filter_is_tried_here() -> None:
    assert set(re.findall(r"\| (\w+)", str(GIVEN))) >= set(FILTERS)
