"""Filters that take lists and mappings, and slices."""

from __future__ import annotations

import re

import pytest

from events.errors import RejectedEvent
from events.filters.lists import FILTERS
from tests.unit.events.making import evaluated

GIVEN = [
    ("tags | length", 3),
    ("map | count", 2),
    ("tags | first", "b"),
    ("tags | last", "b"),
    ("'abc' | first", "a"),
    ("tags | join('+')", "b+a+b"),
    ("rows | join(', ', attribute='k')", "b, a, b"),
    ("tags | sort", ["a", "b", "b"]),
    ("rows | sort(attribute='v', reverse=true) | map(attribute='v') | list", [3, 2, 1]),
    ("tags | unique", ["b", "a"]),
    ("rows | unique(attribute='k') | map(attribute='v')", [2, 1]),
    ("tags | reverse", ["b", "a", "b"]),
    ("'abc' | reverse", "cba"),
    ("rows | map(attribute='v') | min", 1),
    ("rows | max(attribute='v')", {"k": "b", "v": 3}),
    ("rows | sum(attribute='v')", 6),
    ("empty | sum", 0),
    ("rows | selectattr('k', 'eq', 'b') | map(attribute='v')", [2, 3]),
    ("rows | rejectattr('k', 'eq', 'b') | map(attribute='v')", [1]),
    ("rows | selectattr('gone') | list", []),
    ("odd | select('number') | list", [3]),
    ("odd | reject('none') | list", ["1", 3]),
    ("odd | select", ["1", 3]),
    ("rows | map(attribute='x.y', default=0)", [0, 0, 0]),
    ("[rows] | map(attribute='0.v')", [2]),
    ("map | list", ["x", "y"]),
    ("map | keys", ["x", "y"]),
    ("map | values", [1, 2]),
    ("map | items", [["x", 1], ["y", 2]]),
    ("'ab' | list", ["a", "b"]),
    ("map.z | default('none')", "none"),
    ("map.z | d", ""),
    ("'' | default('x', true)", "x"),
    ("odd[1] | default('x')", "x"),
    ("tags[1:]", ["a", "b"]),
    ("path[::-1] | length", 25),
]


@pytest.mark.parametrize(("source", "result"), GIVEN)
def test_a_filter_gives(source: str, result: object) -> None:
    assert evaluated(source) == result


@pytest.mark.parametrize(
    "source",
    [
        "n | join",
        "name | sum",
        "odd | sum",
        "odd | sort",
        "empty | first",
        "empty | max",
        "tags | keys",
        "n | length",
        "n[1:]",
        "rows | map(attribute='gone')",
        "rows | map",
        "rows | map(attr='k')",
        "map.z | list",
        "map.z | length",
    ],
)
def test_what_does_not_fit_is_refused_in_words(source: str) -> None:
    with pytest.raises(RejectedEvent) as caught:
        evaluated(source)
    assert caught.value.code == "template"
    assert "Traceback" not in caught.value.reason


def test_every_filter_is_tried_here() -> None:
    assert set(re.findall(r"\| (\w+)", str(GIVEN))) >= set(FILTERS)
