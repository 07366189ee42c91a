"""Tables fit the terminal, and only their last column wraps."""

from __future__ import annotations

import re
import sys
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len

from services.cli.output import show_rows
from services.cli.terminal.times import show_times

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
