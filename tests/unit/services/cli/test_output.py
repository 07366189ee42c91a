"""Values, ids and errors as people and programs get them."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from events.errors import Backpressure, ConfigError, NotFound, Refused, SluiceError, TransientError
from events.short_ids import shortened, the_one
from services.cli import main
from services.cli.commands import Commands
from services.cli.output import show_fields, show_rows


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()


def test_nothing_is_shown_as_a_dictionary(capsys: pytest.CaptureFixture[str]) -> None:
    nested = {"runs": [{"id": "a", "outcome": None}], "parameters": {"path": "/a", "rows": 5}, "tags": ["x", "y"]}
    show_fields({**nested, "none": {}, "nothing": []})
    show_rows([nested], tuple(nested), as_json=False)
    lines = printed(capsys)
    assert lines[:3] == ["runs        id=a, outcome=-", "parameters  path  /a", "            rows  5"]
    assert lines[3:6] == ["tags        x, y", "none        -", "nothing     -"]
    assert lines[-1] == "id=a, outcome=-  path=/a, rows=5  x, y"


def test_ids_are_cut_to_what_tells_them_apart_and_names_are_not() -> None:
    same = "0f5c81ab-77de-4c1b-9b0e-"
    ids = [same + "000000000001", same + "000000000002", "ab" * 10, "order-1042", "order-1043"]
    assert shortened(ids) == [ids[0], ids[1], "abababab", "order-1042", "order-1043"]
    assert shortened([ids[0], ids[0]]) == ["0f5c81ab", "0f5c81ab"]
    assert shortened([]) == []


def test_a_beginning_that_several_ids_have_names_them() -> None:
    assert the_one({"abcd1"}, "abcd", what="signal") == "abcd1"
    with pytest.raises(NotFound, match="there is no signal 'abcd'"):
        the_one([], "abcd", what="signal")
    with pytest.raises(Refused, match="one of abcd1, abcd2") as many:
        the_one(["abcd2", "abcd1"], "abcd", what="signal")
    assert many.value.code == "ambiguous"


ERRORS = [
    (ConfigError("a is wrong", "b is wrong"), 2, "config", "a is wrong\nb is wrong"),
    (NotFound("there is no x"), 1, "not-found", "there is no x"),
    (Refused("ambiguous", "several"), 1, "ambiguous", "several"),
    (TransientError("redis://:s3cret@h does not answer"), 1, "unavailable", "redis://:***@h does not answer"),
    (Backpressure("full"), 1, "full", "full"),
]


@pytest.mark.parametrize(("error", "exit_code", "code", "message"), ERRORS)
def test_an_error_is_a_sentence_or_with_json_one_object(
    error: SluiceError, exit_code: int, code: str, message: str
) -> None:
    app = Commands()

    @app.command()
    def fail(as_json: bool = typer.Option(False, "--json")) -> None:
        raise error

    told = CliRunner().invoke(app, ["--json"])
    assert (told.exit_code, told.stdout) == (exit_code, "")
    found: dict[str, Any] = json.loads(told.stderr)
    assert set(found) == {"code", "message", "remedy"}
    assert (found["code"], found["message"]) == (code, message)
    assert found["remedy"]
    said = CliRunner().invoke(app, [])
    assert said.exit_code == exit_code
    assert said.stderr.splitlines() == [f"error: {line}" for line in message.split("\n")]


@pytest.mark.parametrize("words", [["runs", "list", "--limit", "0"], ["runs", "nothing"], ["nothing"]])
def test_misuse_is_an_object_too(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sluice", *words, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (2, "")
    assert json.loads(told.err)["code"] == "usage"
