from __future__ import annotations

import inspect
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given

from events.errors import RejectedEvent
from events.filters import FILTERS, TESTS
from events.template import Expression
from events.template_check import TemplateProblem
from tests.unit.events.making import json_values

DATA = {
    "path": "/in/box/Sales 2026.csv.gz",
    "name": "straße",
    "n": 7.25,
    "rows": [{"k": "b", "v": 2}, {"k": "a", "v": 1}, {"k": "b", "v": 3}],
    "tags": ["b", "a", "b"],
    "odd": ["1", None, 3],
    "at": "2026-03-01T12:30:05+01:00",
    "empty": [],
    "map": {"x": 1, "y": 2},
}


def value_of(source: str, data: Any = None) -> Any:
    names = dict.fromkeys(DATA if data is None else data)
    return Expression(source, names).value(DATA if data is None else data)


@pytest.mark.parametrize(
    ("source", "result"),
    [
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
        ("'7' | int", 7),
        ("'7.9' | int(default=0)", 0),
        ("'x' | int(3)", 3),
        ("7.9 | int", 7),
        ("'1e2' | float", 100.0),
        ("'x' | float(0.5)", 0.5),
        ("n | round", 7),
        ("n | round(1)", 7.2),
        ("-3 | abs", 3),
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
    ],
)
def test_a_filter_gives(source: str, result: object) -> None:
    assert value_of(source) == result


@pytest.mark.parametrize(
    ("source", "result"),
    [
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
    ],
)
def test_a_test_says(source: str, result: bool) -> None:
    assert value_of(source) is result


@pytest.mark.parametrize(
    "source",
    [
        "n | upper",
        "tags | abs",
        "n | join",
        "name | sum",
        "odd | sum",
        "odd | sort",
        "empty | first",
        "empty | max",
        "tags | keys",
        "n | length",
        "n[1:]",
        "'x' | int",
        "'x' | float",
        "'1e999' | float",
        "'9' * 40 | int",
        "'yesterday' | date",
        "at | date('%1000000000d')",
        "at | date('%-d%_')",
        "name | replace('', 'x')",
        "rows | map(attribute='gone')",
        "rows | map",
        "rows | map(attr='k')",
        "path is matching('[')",
        "map.z | upper",
        "map.z | list",
        "map.z | length",
        "map.z | tojson",
        "map.z is matching('*')",
        "3 is divisibleby(0)",
    ],
)
def test_what_does_not_fit_is_refused_in_words(source: str) -> None:
    with pytest.raises(RejectedEvent) as caught:
        value_of(source)
    assert caught.value.code == "template"
    assert "Traceback" not in caught.value.reason


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_every_filter_is_tried_here(name: str) -> None:
    source = inspect.getsource(inspect.getmodule(test_every_filter_is_tried_here))
    assert f"| {name}" in source or name == "d"


@given(json_values)
def test_every_filter_answers_any_value_or_refuses_it(value: object) -> None:
    for name in FILTERS:
        with suppress(RejectedEvent, TemplateProblem):
            Expression(f"x | {name}", {"x": None}).value({"x": value})


@given(json_values, json_values)
def test_every_test_answers_any_value_or_refuses_it(value: object, other: object) -> None:
    for name in TESTS:
        for source in (f"x is {name}", f"x is {name}(y)"):
            try:
                found = Expression(source, {"x": None, "y": None}).value({"x": value, "y": other})
            except (RejectedEvent, TemplateProblem):
                continue
            assert isinstance(found, bool)
