"""What `sluice doctor` finds in the environment, and of servers that are down."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import app
from services.operations.doctor import servers, variables
from services.operations.doctor.finding import Finding, Grade

OWN = "http://127.0.0.1:4200/api"


def one(found: Iterator[Finding]) -> Finding:
    (finding,) = found
    return finding


def test_it_works_while_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / ".sluice"))
    monkeypatch.setenv("SLUICE_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    done = CliRunner().invoke(app, ["doctor", "--json"])
    rows = json.loads(done.stdout)
    failed = {row["check"]: row for row in rows if row["grade"] == "fail"}
    assert done.exit_code == 1
    assert set(failed) == {"redis", "prefect"}
    assert all(row["fix"] for row in failed.values())
    assert {"versions", "open files", "permissions", "disk", "environment"} <= {row["check"] for row in rows}
    lines = CliRunner().invoke(app, ["doctor"]).stdout.splitlines()
    assert max(map(len, lines)) <= 80


def test_settings_that_cannot_be_read_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_HOM", "/tmp")
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    (found,) = (row["found"] for row in json.loads(done.stdout) if row["grade"] == "fail")
    assert "did you mean `SLUICE_HOME`?" in found


def test_variables_that_are_left_over_or_misspelt_are_told() -> None:
    def grades(environ: dict[str, str]) -> list[tuple[Grade, str]]:
        names = {"PREFECT_LOGGING_LEVEL"}
        return [
            (one.grade, one.fix)
            for one in variables.check_variables(environ, own_prefect=OWN, prefect_names=lambda: names)
        ]

    assert grades({"PREFECT_API_URL": OWN, "PREFECT_LOGGING_LEVEL": "INFO"}) == [(Grade.OK, "")]
    (other,) = grades({"PREFECT_API_URL": "http://elsewhere/api"})
    assert (other[0], "unset PREFECT_API_URL" in other[1]) == (Grade.FAIL, True)
    assert grades({"PREFECT_LOGING_LEVEL": "INFO"}) == [
        (Grade.WARN, "unset PREFECT_LOGING_LEVEL, or write PREFECT_LOGGING_LEVEL")
    ]
    assert grades({"PREFECT_PROFILE": "cloud"})[0][0] is Grade.WARN


@pytest.mark.parametrize(("apart", "grade"), [(0.5, Grade.OK), (-5.0, Grade.WARN), (60.0, Grade.FAIL)])
def test_clocks_that_are_apart_are_told(apart: float, grade: Grade) -> None:
    assert servers._clock("Redis", time.time() + apart, time.time()).grade is grade
