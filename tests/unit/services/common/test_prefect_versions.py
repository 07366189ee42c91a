"""Which versions of Prefect are said to be untested, and how."""

from __future__ import annotations

import pytest

from config.settings import CHECKOUT
from services.common import prefect_versions
from services.common.prefect_versions import untested, untested_versions


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("3.8.8", False),
        ("3.9.1", False),
        ("3.9.12+3.gabcdef", False),
        ("3.8.7", True),
        ("3.8", True),
        ("3.10.0", True),
        ("3.10.0.dev1", True),
        ("2.20.4", True),
        ("4.0.0", True),
        ("", True),
        ("something else", True),
    ],
)
def test_versions_outside_the_tested_range_are_told_from_those_in_it(version: str, said: bool) -> None:
    assert untested(version) is said


def test_both_sides_are_said_with_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_versions, "version", lambda _name: "3.7.0")
    client, server = untested_versions("3.12.0", url="http://prefect:4200/api")
    assert client.startswith("Prefect 3.7.0 is installed here")
    assert server.startswith("the Prefect server at http://prefect:4200/api has the version 3.12.0")
    assert all("3.8.8 to 3.9.x" in sentence for sentence in (client, server))


def test_what_is_tested_and_what_does_not_answer_is_not_spoken_of() -> None:
    assert untested_versions("3.9.1") == untested_versions(None) == []


def test_the_range_is_the_one_that_is_required() -> None:
    assert (CHECKOUT / "pyproject.toml").read_text().count(f'"prefect>={_first()},<3.10"') == 2
    assert prefect_versions._BEHIND == (3, 10)


def _first() -> str:
    return ".".join(map(str, prefect_versions._FIRST))
