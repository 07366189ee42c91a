"""`sluice new`: what it writes passes every check at once, and changes nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from config.project import load_project, run_rule_tests
from services.cli import app
from services.deployments.declared import read_declarations

PROJECT = """\
# mine
sources:
  files:
    inbox: {path: inbox}   # where they come

rules:
    # the first one
    - name: old
      on: a.b
      run: old/default

contracts: []
"""


@pytest.fixture
def sluice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "sluice.yaml").write_text(PROJECT)
    (tmp_path / "inbox").mkdir()
    monkeypatch.setenv("SLUICE_CONFIG", str(tmp_path / "sluice.yaml"))
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, list(arguments))
        return result.exit_code, result.stdout, result.stderr

    return run


def rules(folder: Path) -> list[str]:
    project = load_project(folder / "sluice.yaml", home=folder / "home")
    assert run_rule_tests(project) == []
    return [rule.spec.name for rule in project.rules.rules]


@pytest.mark.parametrize(
    ("options", "added"),
    [([], ["load-orders"]), (["--file"], ["load-orders"]), (["--waits"], ["load-orders", "load-orders-approved"])],
)
def test_a_flow_comes_with_its_deployment_rule_and_test(
    sluice: Any, tmp_path: Path, checkout: Path, options: list[str], added: list[str]
) -> None:
    code, printed, said = sluice("new", "flow", "load-orders", *options)
    assert code == 0, said
    written = [tmp_path / "flows" / "load_orders.py", tmp_path / "tests" / "test_load_orders.py"]
    assert printed.split() == [str(path) for path in (*written, tmp_path / "sluice.yaml")]
    (deployment,) = read_declarations(tmp_path, environment="development").deployments
    assert (deployment.name, bool(deployment.body["description"])) == ("load-orders/default", True)
    assert rules(tmp_path) == ["old", *added]
    text = (tmp_path / "sluice.yaml").read_text()
    assert text.startswith(PROJECT.partition("\ncontracts")[0])
    assert text.endswith("\ncontracts: []\n")
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--isolated", "--line-length", "120", *map(str, written)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stdout + answer.stderr


def test_an_area_is_a_folder_and_a_tag(sluice: Any, tmp_path: Path) -> None:
    assert sluice("new", "flow", "send-bill", "--area", "billing")[0] == 0
    assert '{"tags": ["billing"]' in (tmp_path / "flows" / "billing" / "send_bill.py").read_text()
    assert '"flows/billing"' in (tmp_path / "tests" / "test_send_bill.py").read_text()


@pytest.mark.parametrize(
    "text", ["sources: {}\n", "rules: []\nsources: {}\n", "rules:\n- name: old\n  on: a\n  run: b/c\n"]
)
def test_a_rule_goes_to_the_end_of_the_rules_wherever_they_are(sluice: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "sluice.yaml").write_text(text)
    assert sluice("new", "rule", "new-order", "--run", "order-approval/default")[0] == 0
    assert rules(tmp_path)[-1] == "new-order"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flow", "Load Orders"], "'Load Orders' is no name for a flow"),
        (["flow", "json"], "'json' is no name for a flow"),
        (["flow", "old"], "old"),
        (["flow", "a", "--waits", "--file"], "--waits and --file"),
        (["rule", "old", "--run", "x/default"], "old"),
    ],
)
def test_what_cannot_be_written_is_said_and_nothing_is_written(
    sluice: Any, tmp_path: Path, arguments: list[str], said: str
) -> None:
    code, _, error = sluice("new", *arguments)
    assert code == 2
    assert said in error
    assert (tmp_path / "sluice.yaml").read_text() == PROJECT
    assert not (tmp_path / "flows").exists()


def test_a_file_that_is_there_is_not_overwritten(sluice: Any, tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "mine.py").write_text("# mine\n")
    code, _, error = sluice("new", "flow", "mine")
    assert code == 2
    assert "is there already" in error
    assert (tmp_path / "flows" / "mine.py").read_text() == "# mine\n"
    assert (tmp_path / "sluice.yaml").read_text() == PROJECT
