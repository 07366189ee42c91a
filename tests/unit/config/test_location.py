"""Where a command finds its project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from config.location import ProjectLocation, locate_project, read_env_file


@pytest.fixture
def default(tmp_path: Path) -> Path:
    file = tmp_path / "application" / "config" / "sluice.yaml"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def make(folder: Path) -> ProjectLocation:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sluice.yaml").touch()
    return ProjectLocation(folder / "sluice.yaml", folder / ".sluice")


class TestAProjectIsFound:
    def test_from_any_folder_below_it(self, tmp_path, default):
        project = make(tmp_path / "mine")
        below = tmp_path / "mine" / "src" / "deep"
        below.mkdir(parents=True)
        assert locate_project({}, below, default=default) == project

    def test_the_nearest_of_two(self, tmp_path, default):
        make(tmp_path)
        inner = make(tmp_path / "inner")
        assert locate_project({}, tmp_path / "inner", default=default) == inner

    def test_by_the_file_that_is_named_wherever_one_is(self, tmp_path, default):
        make(tmp_path / "here")
        named = make(tmp_path / "named")
        environ = {"SLUICE_CONFIG": str(named.file)}
        assert locate_project(environ, tmp_path / "here", default=default) == named

    def test_beside_the_home_that_is_named(self, tmp_path, default):
        make(tmp_path / "here")
        named = make(tmp_path / "named")
        assert locate_project({"SLUICE_HOME": str(named.home)}, tmp_path / "here", default=default) == named

    def test_as_the_default_one_where_there_is_no_other(self, tmp_path, default):
        (tmp_path / "empty").mkdir()
        expected = ProjectLocation(default, tmp_path / "empty" / ".sluice")
        assert locate_project({}, tmp_path / "empty", default=default) == expected

    def test_as_one_to_be_made_where_there_is_no_default(self, tmp_path):
        found = locate_project({}, tmp_path, default=tmp_path / "missing.yaml")
        assert found == ProjectLocation(tmp_path / "sluice.yaml", tmp_path / ".sluice")


class TestTheEnvFile:
    def test_sets_what_is_not_set(self, tmp_path, default):
        make(tmp_path / "mine")
        (tmp_path / "mine" / ".env").write_text("# mine\nA=from file\nB='quoted $A'\nEMPTY\n")
        environ = {"A": "from outside"}
        read_env_file(environ, tmp_path / "mine", default=default)
        assert environ == {"A": "from outside", "B": "quoted $A"}

    def test_has_one_beside_it_for_each_environment_that_wins(self, tmp_path, default):
        make(tmp_path / "mine")
        (tmp_path / "mine" / ".env").write_text("A=everywhere\nB=everywhere\nSLUICE_ENV=staging\n")
        for name in ("staging", "production"):
            (tmp_path / "mine" / f".env.{name}").write_text(f"A={name}\n")
        environ: dict[str, str] = {}
        read_env_file(environ, tmp_path / "mine", default=default)
        assert environ == {"A": "staging", "B": "everywhere", "SLUICE_ENV": "staging"}
        environ = {"SLUICE_ENV": "production"}
        read_env_file(environ, tmp_path / "mine", default=default)
        assert environ == {"A": "production", "B": "everywhere", "SLUICE_ENV": "production"}

    def test_beside_the_default_project_is_somebody_elses(self, tmp_path, default):
        (default.parent / ".env").write_text("A=1\n")
        environ: dict[str, str] = {}
        read_env_file(environ, tmp_path, default=default)
        assert environ == {}


def test_the_command_reads_it_before_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port of the file is the port that is said to be wrong."""
    import services.cli

    make(tmp_path)
    (tmp_path / ".env").write_text("SLUICE_PORTS__API=many\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["sluice", "check"])
    with pytest.raises(SystemExit) as ended:
        services.cli.main()
    assert ended.value.code == 2
    os.environ.pop("SLUICE_PORTS__API")
