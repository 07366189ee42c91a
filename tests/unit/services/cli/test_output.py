"""Listings, times and errors as people and programs get them."""

from __future__ import annotations

import json
import re
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer
from rich.cells import cell_len
from typer.testing import CliRunner

from events.errors import Backpressure, ConfigError, NotFound, Refused, SluiceError, TransientError
from events.short_ids import shortened, the_one
from services.cli import main
from services.cli.commands import Commands
from services.cli.output import show_fields, show_rows
from services.cli.terminal.times import age, moment, refuse_empty, show_times

NOW = datetime.now(UTC)
ID = str(uuid.uuid4())
ROW = {
    "id": ID,
    "name": "ingest 订单-orders-of-the-last-quarter-2026-11-30.csv",
    "state": "Completed",
    "started": NOW - timedelta(days=3),
    "rule": None,
    "message": "1461 rows of orders-2026-11-30.csv are loaded into the table orders, and none was refused",
}
NARROW = ("id", "state", "started", "name", "message")


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()


def be_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_listing_fits_80_columns_and_only_its_last_column_wraps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], on_terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: on_terminal)
    monkeypatch.setenv("COLUMNS", "80")
    if not on_terminal:
        monkeypatch.delenv("COLUMNS")
    show_rows([ROW], tuple(ROW), narrow=NARROW, as_json=False)
    lines = printed(capsys)
    assert max(map(cell_len, lines)) <= 80
    assert lines[0].split() == list(NARROW)
    assert lines[1].startswith(f"{ID[:8]}  Completed  3 d ago  ingest 订单-")
    assert all(line.startswith(" " * 33) for line in lines[2:])
    begin = lines[1].index("1461")
    wrapped = [lines[1][begin:], *(line.strip() for line in lines[2:])]
    assert "".join(wrapped).replace(" ", "") == str(ROW["message"]).replace(" ", "")


def test_a_time_in_utc_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    show_times(utc=True)
    try:
        show_rows([ROW], NARROW, as_json=False)
    finally:
        show_times(utc=False)
    line = printed(capsys)[1]
    assert re.search(r" \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  ingest .*…  ", line)
    assert cell_len(line) <= 80


def test_a_wide_terminal_has_all_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    show_rows([ROW], tuple(ROW), narrow=NARROW, as_json=False)
    assert printed(capsys)[0].split() == list(ROW)


def test_states_have_colours_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be_a_terminal(monkeypatch)
    rows = [{"state": "Completed"}, {"state": "Failed"}, {"state": "Degraded by hand"}]
    show_rows(rows, ("state",), as_json=False)
    said = capsys.readouterr().out
    assert "\x1b[32mCompleted" in said
    assert "\x1b[31mFailed" in said
    assert "\nDegraded by hand" in said
    monkeypatch.setenv("NO_COLOR", "1")
    show_rows(rows, ("state",), as_json=False)
    assert not re.search(r"\x1b\[[\d;]*3\dm", capsys.readouterr().out)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    show_rows(rows, ("state",), as_json=False)
    assert "\x1b" not in capsys.readouterr().out


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


@pytest.mark.parametrize(
    ("ago", "said"),
    [
        (0.4, "now"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7199, "1 h ago"),
        (-61, "in 1 min"),
        (3 * 86400, "3 d ago"),
        (40 * 86400, (NOW - timedelta(days=40)).astimezone().strftime("%Y-%m-%d")),
    ],
)
def test_times_are_ages_in_a_listing(ago: float, said: str) -> None:
    assert age(NOW - timedelta(seconds=ago), NOW) == said


def test_times_are_in_utc_when_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 11, 30, 21, 4, 17, tzinfo=UTC)
    show_times(utc=True)
    try:
        show_rows([{"at": at}], ("at",), as_json=False)
        show_fields({"at": at})
    finally:
        show_times(utc=False)
    assert printed(capsys)[1:] == ["2026-11-30T21:04:17Z", "at  2026-11-30T21:04:17Z"]


def test_a_period_that_holds_nothing_is_refused() -> None:
    refuse_empty(moment("2h"), moment("1h"))
    refuse_empty(moment("1h"), None)
    with pytest.raises(typer.BadParameter, match=r"--since 20.* is not before --until 20"):
        refuse_empty(moment("1h"), moment("2h"))


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
