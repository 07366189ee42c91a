"""A new project is right as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.project import load_project, run_rule_tests
from events.errors import ConfigError
from services.deployments.declared import read_declarations
from services.local.new_project import Template, make_project


@pytest.mark.parametrize("template", list(Template))
def test_its_file_rules_and_flows_pass_every_check(template: Template, tmp_path: Path) -> None:
    folder = tmp_path / "Aufträge 2026"
    make_project(folder, template)
    project = load_project(folder / "sluice.yaml", home=folder / ".sluice")
    assert project.name == "auftr-ge-2026"
    assert run_rule_tests(project) == []
    declarations = read_declarations(folder, environment="production", flows=project.flows)
    wanted = {action.run for rule in project.rules.rules for action in rule.spec.actions if action.run}
    assert {one.name for one in declarations.deployments} == wanted
    assert declarations.notes == ()
    assert declarations.unusable == {}


@pytest.mark.parametrize("template", [one for one in Template if one is not Template.EMPTY])
def test_its_own_tests_pass(template: Template, tmp_path: Path) -> None:
    make_project(tmp_path, template)
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path,
        env={**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n", encoding="utf-8")
    (tmp_path / "flows").mkdir()
    written = make_project(tmp_path, Template.FILES)
    assert (tmp_path / ".gitignore").read_text(encoding="utf-8") == "mine\n"
    assert tmp_path / ".gitignore" not in written
    assert tmp_path / "flows" / "load_rows.py" in written
    assert (tmp_path / ".env.example").is_file()
    assert (tmp_path / "inbox" / ".gitkeep").is_file()


def test_a_folder_with_a_project_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sluice.yaml").write_text("rules: []\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is there already"):
        make_project(tmp_path, Template.FILES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sluice.yaml"]


def test_its_readme_has_its_name(tmp_path: Path) -> None:
    make_project(tmp_path / "Night Jobs", Template.EMPTY)
    assert (tmp_path / "Night Jobs" / "README.md").read_text(encoding="utf-8").startswith("# night-jobs\n")
