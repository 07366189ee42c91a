"""What the project file says of all deployments, and what a flow's own file says instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config.project import load_project
from config.settings import load_settings
from events.errors import ConfigError
from services.deployments.deploy import declare

FLOW = "from prefect import flow\n{deployment}\n@flow\ndef {name}(size: int = 1): ...\n"


@pytest.fixture
def bodies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The deployments' bodies by the names of their flows."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "plain.py").write_text(FLOW.format(deployment="", name="plain"))
    own = 'DEPLOYMENT = {"tags": ["own"], "time_seconds": 60, "job_variables": {"env": {"A": "own"}}}\n'
    (tmp_path / "flows" / "special.py").write_text(FLOW.format(deployment=own, name="special"))
    monkeypatch.setenv("SLUICE_CONFIG", str(tmp_path / "sluice.yaml"))
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))

    def read(text: str, environment: str = "development") -> dict[str, Any]:
        monkeypatch.setenv("SLUICE_ENV", environment)
        (tmp_path / "sluice.yaml").write_text(text)
        settings = load_settings()
        declared = declare(settings, load_project(settings.config, home=settings.home)).deployments
        return {one.flow: one.body for one in declared}

    return read


TEMPLATE = """\
deployments:
  owner: data-team
  tags: [standard]
  concurrency_limit: 3
  time_seconds: 3600
  environments:
    production: {concurrency_limit: 9}
"""


def test_every_deployment_has_what_the_project_says_and_its_own_file_does_not(bodies: Any) -> None:
    found = bodies(TEMPLATE)
    assert found["plain"]["tags"] == ["owner:data-team", "sluice", "standard"]
    assert found["special"]["tags"] == ["own", "owner:data-team", "sluice", "standard"]
    assert [found[name]["concurrency_limit"] for name in ("plain", "special")] == [3, 3]
    seconds = [found[name]["job_variables"]["sluice_time_seconds"] for name in ("plain", "special")]
    assert seconds == [3600, 60]
    assert bodies(TEMPLATE, "production")["plain"]["concurrency_limit"] == 9


def test_a_work_pool_for_all_flows_is_left_by_the_one_that_says_so(bodies: Any, tmp_path: Path) -> None:
    pool = "deployments:\n  time_seconds: 60\n  environments:\n    production: {work_pool: machines}\n"
    (tmp_path / "flows" / "special.py").write_text(
        FLOW.format(deployment='DEPLOYMENT = {"environments": {"production": {"work_pool": None}}}', name="special")
    )
    found = bodies(pool, "production")
    assert (found["plain"]["work_pool_name"], found["plain"]["job_variables"]) == ("machines", {})
    assert (found["special"]["work_pool_name"], found["special"]["pull_steps"]) == (None, None)
    assert found["special"]["job_variables"] == {"sluice_time_seconds": 60}
    assert bodies(pool)["plain"]["work_pool_name"] is None


def test_without_it_deployments_are_as_their_files_say(bodies: Any) -> None:
    assert bodies("rules: []\n")["plain"]["tags"] == ["sluice"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("deployments:\n  ownr: x\n", "sluice.yaml:2: deployments.ownr: "),
        ("deployments:\n  cron: '0 3 * * *'\n", "sluice.yaml:2: deployments.cron: each flow has its own"),
        ("deployments: [x]\n", "sluice.yaml:1: deployments: ['x'] does not fit"),
        (
            "deployments:\n  environments:\n    prod: {}\n",
            "environments.prod: there is no environment 'prod'",
        ),
        (
            "deployments:\n  environments:\n    staging: {time_seconds: -1}\n",
            "deployments.environments.staging.time_seconds: ",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(bodies: Any, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        bodies(text)
    assert said in "\n".join(error.value.problems)
