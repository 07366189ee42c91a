"""Edits of dead letters."""

from __future__ import annotations

import json

import pytest

from events.errors import Refused
from events.untrusted_json import Limits
from services.routing.dead_letter_replay import edited, parse_edit

RAW = json.dumps({"id": "e1", "data": {"amount": "many", "lines": [{"n": 1}, {"n": 2}]}}).encode()


def _edited(*texts: str) -> object:
    return json.loads(edited(RAW, dict(parse_edit(text) for text in texts), Limits()))


def test_values_are_json_where_they_are_json_and_text_where_not() -> None:
    assert parse_edit("data.amount=5") == ("data.amount", 5)
    assert parse_edit("data.note=five=5") == ("data.note", "five=5")
    assert parse_edit('data.list=[1, {"a": null}]') == ("data.list", [1, {"a": None}])
    assert parse_edit("subject=") == ("subject", "")


def test_paths_reach_into_objects_and_arrays_and_make_what_is_missing() -> None:
    assert _edited("data.amount=5", "data.lines.1.n=7", "data.new.deep=true") == {
        "id": "e1",
        "data": {"amount": 5, "lines": [{"n": 1}, {"n": 7}], "new": {"deep": True}},
    }


@pytest.mark.parametrize("text", ["data.lines.9.n=1", "data.amount.deeper=1", "data.lines.x=1"])
def test_a_path_that_leads_nowhere_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="leads nowhere"):
        _edited(text)


@pytest.mark.parametrize("text", ["data.amount", "=5", "data..amount=5"])
def test_what_is_no_edit_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="not of the form"):
        parse_edit(text)


def test_an_edit_cannot_bring_in_what_a_message_may_not() -> None:
    raw = edited(RAW, {"data": {"__prefect_kind": "jinja"}}, Limits())
    with pytest.raises(Refused, match="refused"):
        edited(raw, {"id": "e2"}, Limits())
