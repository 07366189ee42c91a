"""Globs, templates and names in the configuration of a watched folder."""

from __future__ import annotations

import pytest

from config.paths import PathTemplate, check_path_glob


@pytest.mark.parametrize(
    ("template", "path", "captured"),
    [
        ("{customer}/{year:int}/{rest:path}", "acme/2024/q1/a", {"customer": "acme", "year": 2024, "rest": "q1/a"}),
        ("{watch}/{customer}/{rest:path}", "acme/a.csv", {"customer": "acme", "rest": "a.csv"}),
        ("{kind}_{day:int}.csv", "orders_20240131.csv", {"kind": "orders", "day": 20240131}),
        ("{kind}_{day:int}.csv", "orders_today.csv", {"kind": None, "day": None}),
        ("{a}/{b}", "x/y/z", {"a": None, "b": None}),
        ("in.{a}", "inx1", {"a": None}),
        ("{a}", "line\nbreak", {"a": "line\nbreak"}),
    ],
)  # fmt: skip
def test_a_template_captures_parts_of_a_path_or_none_of_it(
    template: str, path: str, captured: dict[str, object]
) -> None:
    assert PathTemplate(template).capture(path) == captured


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{a}/{a}", "twice"),
        ("{a:float}", "the kinds are"),
        ("{a", "brace"),
        ("a}", "brace"),
        ("{}", "not a name"),
        ("{A}", "not a name"),
        ("{size}", "set by the listener itself"),
        ("/{a}", "leading slash"),
    ],
)
def test_a_template_that_makes_no_sense_is_refused(template: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        PathTemplate(template)


@pytest.mark.parametrize("glob", ["*", "*.csv", "**/*.csv", "a/[ab]/*.{csv,json}", "[]]*", r"\[x", "[!a]b", "ü?.csv"])
def test_a_usable_glob_is_let_through(glob: str) -> None:
    check_path_glob(glob)


@pytest.mark.parametrize(
    ("glob", "fault"),
    [
        ("", "empty"),
        ("/abs/*.csv", "leading slash"),
        ("../*.csv", "leave the watch"),
        ("a/../b", "leave the watch"),
        ("*.[csv", "without its pair"),
        ("*.{csv", "without its pair"),
        ("{1..100000}", "cannot be used"),
    ],
)
def test_a_glob_that_cannot_match_or_leads_out_is_refused(glob: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        check_path_glob(glob)
