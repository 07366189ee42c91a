"""The picture of a project's rules."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner, Result

from services.cli import app

RULES = """\
rules:
  - name: first
    on: order.*
    when: event.data.id > 5
    run: ship/default
    parameters: {order: "{{ event.data.id }}"}
  - name: second
    on: order.*
    subject: "*.csv"
    run: other/default
  - name: third
    on: order.*
    batch: {max_events: 5, max_wait_seconds: 1}
    resume: {key: "batch-{{ events | length }}"}
  - name: fourth
    on: order.*
    run: ship/default
    run_name: "{{ event.data.name }}"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "sluice.yaml"
    path.write_text(RULES)
    monkeypatch.setenv("SLUICE_CONFIG", str(path))
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFECT_API_URL")
    return path


def call(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def test_the_picture_has_every_rule_that_is_enabled_between_its_sources_and_what_it_does(config: Path) -> None:
    config.with_name("inbox").mkdir()
    config.write_text(
        """\
sources:
  files: {inbox: {path: inbox}}
  redis: {bus: {channel: bus}, answers: {channel: answers, carries: signals}}
  http: {hooks: {shop: {verify: github, secret_env: SHOP, type: shop}}}
rules:
  - {name: load-all, on: sluice.file.arrived, run: load <all>/default}
  - {name: ship, on: "order.*", run: ship/default}
  - {name: yes-said, on: "order.approved", resume: {key: 'order-"{{ event.data.id }}"'}}
  - {name: idle, on: "order.*", run: never/default, enabled: false}
"""
    )
    lines = call("rules", "graph").stdout.splitlines()
    assert lines[0] == "flowchart LR"
    labels = {re.split(r"[\[(]", line.strip())[0]: line for line in lines[1:] if "-->" not in line}
    assert sorted(labels) == ["d0", "d1", "d2", "r0", "r1", "r2", "s0", "s1", "s2"]
    assert "run load &lt;all&gt;/default" in labels["d0"]
    assert "order-#quot;{{ event.data.id }}#quot;" in labels["d2"]
    assert {line.strip() for line in lines if "-->" in line} == {
        "s0 --> r0",
        *(f"s{source} --> r{rule}" for source in (1, 2) for rule in (1, 2)),
        "r0 --> d0",
        "r1 --> d1",
        "r2 --> d2",
    }
    picture = ET.fromstring(call("rules", "graph", "--svg").stdout)
    assert len(picture.findall("{*}rect")) == 9
    assert len(picture.findall("{*}path")) == 8
    assert "never/default" not in call("rules", "graph").stdout
