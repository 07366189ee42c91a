"""The canary's flow is registered where it is on, under the project's name, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.canary import canary_rules
from config.project import load_project
from config.settings import load_settings
from services.deployments.deploy import declare


@pytest.mark.parametrize(
    ("on", "name", "wanted"), [(True, "shop", "shop"), (True, None, "default"), (False, "shop", "")]
)
def test_the_canarys_flow_has_one_deployment_for_each_project_and_its_rule_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: bool, name: str | None, wanted: str
) -> None:
    (tmp_path / "sluice.yaml").write_text(f"name: {name}\n" if name else "rules: []\n")
    monkeypatch.setenv("SLUICE_CONFIG", str(tmp_path / "sluice.yaml"))
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SLUICE_CANARY__ENABLED", str(on).lower())
    settings = load_settings()
    project = load_project(settings.config, home=settings.home)
    found = [one.name for one in declare(settings, project).deployments]
    assert found == ([f"sluice-canary/{wanted}"] if on else [])
    if on:
        (rule,) = canary_rules(settings.canary, project=project.name).rules
        assert [rule.spec.run] == found
