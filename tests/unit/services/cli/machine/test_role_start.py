"""What a fork of the start template begins with, and that it reads anew what has changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.project import Project
from services.cli.machine import role_start
from services.cli.machine.role_start import become_role, prepare

PROJECT = "name: prepared\nsources: {}\nrules: []\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project file."""
    path = tmp_path / "sluice.yaml"
    path.write_text(PROJECT)
    monkeypatch.setenv("SLUICE_CONFIG", str(path))
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    yield path
    role_start._prepared.clear()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Project | None]:
    """The projects that roles began with; None stands for one that they read themselves."""
    found: list[Project | None] = []

    def run_role(_role: str, _settings: Any, *, project: Project | None) -> None:
        found.append(project)

    monkeypatch.setattr(role_start, "run_role", run_role)
    monkeypatch.setattr(role_start, "configure_logging", lambda *_args, **_options: None)
    return found


def test_a_role_begins_with_what_the_template_has_read(file: Path, begun: list[Project | None]) -> None:
    prepare()
    assert become_role("router") == 0
    assert [project and project.name for project in begun] == ["prepared"]


@pytest.mark.parametrize("changed", ["sluice.yaml", "contracts/orders.yaml"])
def test_a_role_that_starts_after_a_change_reads_the_files(
    file: Path, begun: list[Project | None], changed: str
) -> None:
    prepare()
    (file.parent / changed).parent.mkdir(exist_ok=True)
    (file.parent / changed).write_text(PROJECT.replace("prepared", "changed"))
    assert become_role("router") == 0
    assert begun == [None]


def test_a_role_with_another_environment_reads_it(
    file: Path, begun: list[Project | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare()
    monkeypatch.setenv("SLUICE_LOG__LEVEL", "debug")
    assert become_role("router") == 0
    assert begun == [None]


def test_a_role_with_a_redis_user_of_its_own_reads_its_settings(
    file: Path, begun: list[Project | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    users = file.parent / "users.json"
    users.write_text(json.dumps({"sluice-operator": "all", "sluice-router": "some"}))
    users.chmod(0o600)
    monkeypatch.setenv("SLUICE_REDIS__USERS_FILE", str(users))
    prepare()
    assert become_role("router") == 0
    assert begun == [None]


def test_the_template_reads_a_changed_file_before_it_forks_again(file: Path, begun: list[Project | None]) -> None:
    prepare()
    file.write_text(PROJECT.replace("prepared", "changed"))
    prepare()
    become_role("router")
    assert [project and project.name for project in begun] == ["changed"]


def test_what_cannot_be_read_is_said_by_the_role(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(role_start, "configure_logging", lambda *_args, **_options: None)
    monkeypatch.setenv("SLUICE_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    file.write_text("rules: {}\n")
    prepare()
    assert become_role("router") == 2
    assert "sluice.yaml:1: `rules`" in capsys.readouterr().err
