"""Times as people write them on the command line, and as they read them there."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
import typer

from services.cli.output import show_fields, show_rows
from services.cli.terminal.times import age, moment, refuse_empty, show_times

NOW = datetime.now(UTC)


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()


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
