"""`sluice rules` and `sluice check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.cli import app

EVENT = {"specversion": "1.0", "id": "1", "source": "shop", "type": "order.made", "data": {"id": 7}}

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


def test_list_shows_the_rules_in_their_order(config: Path) -> None:
    rows = json.loads(call("rules", "list", "--json").stdout)
    assert [row["name"] for row in rows] == ["first", "second", "third", "fourth"]
    assert rows[0]["does"] == "run ship/default"
    assert rows[2]["windows"] == "batch"
    assert "first" in call("rules", "list").stdout
    assert len(json.loads(call("rules", "list", "--json", "--limit", "2").stdout)) == 2


def test_test_explains_each_verdict_and_renders_what_would_be_done(config: Path) -> None:
    rows = json.loads(call("rules", "test", "-", "--json", stdin=json.dumps(EVENT)).stdout)
    first, second, third, fourth = rows
    assert first["matched"]
    assert first["actions"][0]["parameters"] == {"order": 7}
    assert (second["matched"], second["failed"]) == (False, "subject")
    assert third["gathered"]
    assert third["actions"][0]["key"] == "batch-1"
    assert fourth["matched"]
    assert "no key 'name'" in fourth["error"]


def test_test_says_the_same_in_words(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text(json.dumps({**EVENT, "data": {"id": 1}}))
    said = call("rules", "test", str(file)).stdout
    assert "· first: no, by when: event.data.id > 5: event.data.id = 1" in said
    assert "✓ third: matches; its windows decide by the keys gather ''; with this event alone it would do" in said
    assert "✓ fourth: matches; but it becomes a dead letter: " in said


def test_test_takes_plain_json_under_a_type(config: Path) -> None:
    result = call("rules", "test", "-", "--type", "order.made", "--rule", "first", "--json", stdin='{"id": 9}')
    (row,) = json.loads(result.stdout)
    assert row["matched"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (["rules", "test", "-"], "nonsense", 1, "not JSON"),
        (["rules", "test", "/nowhere.json"], None, 1, "/nowhere.json cannot be read"),
        (["rules", "test", "-", "--rule", "nope"], json.dumps(EVENT), 1, "has no rule 'nope'"),
        (["rules", "test"], None, 2, "give either EVENT or --against-last"),
        (["rules", "test", "-", "--against-last", "5"], "", 2, "give either EVENT or --against-last"),
        (["rules", "list", "--config", "/nowhere.yaml"], None, 2, "there is no such file"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    config: Path, arguments: list[str], stdin: str | None, code: int, said: str
) -> None:
    result = call(*arguments, stdin=stdin)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""


def test_a_changed_file_may_be_tried_without_putting_it_in_force(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("rules: [{name: only, on: '*', run: a/b}]")
    (row,) = json.loads(call("rules", "test", "-", "--json", "--config", str(other), stdin=json.dumps(EVENT)).stdout)
    assert row["rule"] == "only"


def test_check_runs_the_tests_beside_the_rules(config: Path) -> None:
    assert call("check").exit_code == 0
    config.write_text(RULES + "    tests: [{name: mine, event: {type: order.made, data: {name: x}}, runs: []}]\n")
    result = call("check")
    assert result.exit_code == 2
    assert f"{config}:19: rule 'fourth': tests.0: the test 'mine' failed" in result.stderr


def test_check_tells_every_problem(config: Path) -> None:
    config.write_text("rules:\n  - {name: a, on: '*', run: x}\n  - {name: b, onn: '*', run: a/b}\n")
    result = call("check")
    assert result.exit_code == 2
    assert result.stderr.count("error: ") == 2


def test_check_warns_of_a_webhook_without_its_secret(config: Path) -> None:
    config.write_text("sources: {http: {hooks: {shop: {verify: github, secret_env: SHOP_SECRET, type: shop}}}}\n")
    result = call("check")
    assert result.exit_code == 0, result.stderr
    assert "warning: sources.http.hooks.shop: the environment variable SHOP_SECRET holds no secret" in result.stderr


def test_schema_prints_what_editors_need() -> None:
    schema = json.loads(call("schema").stdout)
    assert schema["title"] == "Sluice project"
    assert "RuleSpec" in schema["$defs"]
