"""Globs, templates and names in the configuration of a watched folder."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from config.paths import PathTemplate, check_path_glob
from config.sources import FilesSource


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


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"include": []}, "no file would ever match"),
        ({"include": ["[a"]}, "without its pair"),
        ({"done": "x", "failed": "x"}, "the same folder"),
        ({"done": "../elsewhere"}, "not a name for a folder"),
        ({"done": "."}, "not a name for a folder"),
        ({"failed": ".."}, "not a name for a folder"),
        ({"failed": ""}, "not a name for a folder"),
        ({"marker": "done"}, "`{name}`"),
        ({"marker": "{name}"}, "`{name}`"),
        ({"marker": "x/{name}.done"}, "`{name}`"),
        ({"marker": "{name}{stem}"}, "`{name}`"),
        ({"rerun": "content", "sha256": "never"}, "compares contents"),
        ({"data": {"path": "x"}}, "set by the listener itself"),
        ({"data": {"x": {"__prefect_kind": "jinja"}}}, "__prefect_kind"),
        ({"data": {"a": 1}, "template": "{a}"}, "both set a"),
        ({"template": "{a"}, "brace"),
        ({"type": ""}, "at least 1 character"),
        ({"ready": "soon"}, "auto"),
        ({"stable_seconds": 0}, "greater than 0"),
        ({"quiet_ms": -1}, "greater than or equal to 0"),
        ({"recursiv": True}, "Extra inputs"),
        ({"path": "caf\udce9"}, "not UTF-8"),
    ],
)
def test_a_watch_that_makes_no_sense_is_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        FilesSource(**{"path": "/in", **options})
