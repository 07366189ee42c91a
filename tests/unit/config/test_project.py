from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from config.project import Project, load_project, project_schema, run_rule_tests
from config.settings import DEFAULT_PROJECT
from config.yaml_file import read_yaml
from events.errors import ConfigError
from events.rule import evaluate
from tests.unit.events.making import event

RULE = "  - name: r\n    on: '*'\n    run: a/b\n"


def load(folder: Path, text: str) -> Project:
    path = folder / "sluice.yaml"
    path.write_text(text)
    return load_project(path, home=folder / ".sluice")


def problems(folder: Path, text: str) -> list[str]:
    """What is wrong, without the file's path."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return [problem.removeprefix(f"{folder / 'sluice.yaml'}:") for problem in caught.value.problems]


class TestTheDefaultProject:
    def test_is_good_and_its_tests_hold(self, tmp_path: Path) -> None:
        project = load_project(DEFAULT_PROJECT, home=tmp_path / ".sluice")
        assert run_rule_tests(project) == []
        assert {"ingest-file", "start-order", "approve-order"} <= {rule.name for rule in project.rules.rules}

    def test_watches_the_inbox_beside_the_home(self, tmp_path: Path) -> None:
        project = load_project(DEFAULT_PROJECT, home=tmp_path / ".sluice")
        assert project.sources.files["inbox"].path == tmp_path / "inbox"

    def test_names_only_deployments_that_exist(self, checkout: Path) -> None:
        project = load_project(DEFAULT_PROJECT, home=checkout / ".sluice")
        named = {action.run for rule in project.rules.rules for action in rule.spec.actions if action.run}
        flows = {path.stem.replace("_", "-") for path in (checkout / "flows").glob("[!_]*.py")}
        assert {name.split("/")[0] for name in named} <= flows
        assert {name.split("/")[1] for name in named} == {"default"}

    def test_hears_events_and_signals_under_the_names_of_the_contract(self, tmp_path: Path) -> None:
        redis = load_project(DEFAULT_PROJECT, home=tmp_path).sources.redis
        assert (redis["events"].channel, redis["events"].stream, redis["events"].carries) == (
            "sluice.events",
            "sluice.events",
            "events",
        )
        assert (redis["resume"].channel, redis["resume"].stream, redis["resume"].carries) == (
            "sluice.resume",
            "sluice.resume",
            "signals",
        )


class TestAProject:
    def test_may_be_empty(self, tmp_path: Path) -> None:
        project = load(tmp_path, "")
        assert len(project.rules) == 0
        assert project.sources.files == {}

    def test_takes_relative_paths_from_its_own_folder(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "other").mkdir()
        project = load(tmp_path, f"sources: {{files: {{a: {{path: ./x/../in}}, b: {{path: {tmp_path / 'other'}}}}}}}")
        assert project.sources.files["a"].path == tmp_path / "in"
        assert project.sources.files["b"].path == tmp_path / "other"

    def test_has_a_version_that_changes_with_the_file_and_with_nothing_else(self, tmp_path: Path) -> None:
        one = load(tmp_path, "rules:\n" + RULE)
        again = load(tmp_path, "rules:\n" + RULE)
        other = load(tmp_path, "rules:\n" + RULE + "# changed\n")
        assert one.version == again.version != other.version
        assert len(one.version) == 12

    def test_keeps_its_rules_in_order(self, tmp_path: Path) -> None:
        text = "rules:\n" + "".join(RULE.replace("name: r", f"name: {name}") for name in "cab")
        assert [verdict.rule for verdict in evaluate(load(tmp_path, text).rules, event())] == ["c", "a", "b"]

    def test_knows_where_each_part_of_a_rule_stands(self, tmp_path: Path) -> None:
        project = load(tmp_path, "rules:\n" + RULE + "    parameters:\n      x: 1\n")
        assert project.where("r", "parameters", "x") == f"{project.path}:6: rule 'r': parameters.x"


class TestProblems:
    @pytest.mark.parametrize(
        "run", ["{{ event.data.flow }}/default", "f/{{ event.data.deployment }}", "{{ event.data.run }}", "f/d {{ x }}"]
    )
    def test_a_deployment_is_never_a_template(self, tmp_path: Path, run: str) -> None:
        for action in (f"run: '{run}'", f"do: [{{run: '{run}'}}]"):
            (problem,) = problems(tmp_path, f"rules:\n  - name: r\n    on: '*'\n    {action}\n")
            assert "a deployment is never a template" in problem

    def test_are_told_all_at_once_in_the_order_of_the_file(self, tmp_path: Path) -> None:
        text = """\
sources:
  files:
    inbox: {path: nowhere, includ: ["*"]}
  redis:
    a: {type: x}
ruls: 3
rules:
  - name: one
    on: "a[b"
    run: ingest/default
    parameters: {path: "{{ event.sbject }}", deep: [1, "{{ evnt }}"]}
    when: event.data.size >
  - name: one
    subjct: "*.csv"
    on: a
    resume: {key: 3, inpt: {}}
    stop: 1.5
  - on: a
    run: nope
    batch: {max_events: 0, max_wait: 4}
    rate: 10 per minute
  - name: x
    on: a
    dedupe_key: event.id
    do:
      - {run: a/b, parameters: "{{ event.dta }}"}
      - {run: a/b, resume: {key: a}}
  - just text
"""
        found = problems(tmp_path, text)
        assert [problem.partition(":")[0] for problem in found] == [
            "3", "5", "6", "9", "11", "11", "12", "13", "14", "16", "16", "17", "18", "19", "20", "20", "20", "21",
            "24", "26", "27", "28",
        ]  # fmt: skip
        said = "\n".join(found)
        for part in (
            "3: sources.files.inbox.includ: unknown key — did you mean `include`?",
            "5: sources.redis.a: name at least one of `channel`, `stream` and `list`",
            "6: ruls: unknown key — did you mean `rules`?",
            "9: rule 'one': on: the set '[' is never closed",
            "11: rule 'one': parameters.path: '{{ event.sbject }}': there is no `event.sbject`: did you mean",
            "11: rule 'one': parameters.deep.1: '{{ evnt }}': 'evnt' is not known here: did you mean `event`?",
            "12: rule 'one': when: 'event.data.size >' is not a Jinja template",
            "13: rule 'one': name: the name is taken",
            "14: rule 'one': subjct: unknown key — did you mean `subject`?",
            "16: rule 'one': resume.inpt: unknown key — did you mean `input`?",
            "16: rule 'one': resume.key: 3 does not fit — write text, in quotes",
            "17: rule 'one': stop: 1.5 does not fit — write true or false",
            "18: rule 3: the key 'name' is missing",
            "19: rule 3: run: 'nope' does not fit — write it as flow-name/deployment-name",
            "20: rule 3: batch.max_wait: unknown key — did you mean `max_wait_seconds`?",
            "21: rule 3: rate: write a rate such as 10/minute",
            "24: rule 'x': dedupe_key: 'event.id' would be the same key for every event",
            "26: rule 'x': do.0.parameters: '{{ event.dta }}': there is no `event.dta`: did you mean `event.data`?",
            "27: rule 'x': do.1: name exactly one of `run` and `resume`",
            "28: rule 5: 'just text' does not fit — write a mapping",
        ):
            assert part in said

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            ("run: a/b\n    do: [{run: c/d}]", "`run` stands beside `do`"),
            ("parameters: {}\n    do: [{run: c/d}]", "`parameters` stands beside `do`"),
            ("name: r", "stands there twice"),
            ("resume: {}", "name exactly one of `key` and `run_id`"),
            ("run: a/b\n    resume: {key: k}", "name exactly one of `run` and `resume`"),
            ("resume: {key: k}\n    run_name: x", "`run_name` belongs to `run`"),
            ("run: a/b\n    after_seconds: 5\n    at: x", "name only one of `after_seconds` and `at`"),
            ("run: a/b\n    after_seconds: '5'", "write a number of seconds without quotes"),
            ("run: a/b\n    after_seconds: -5", "between 0 and"),
            ("run: '{{ event.data.flow }}'", "a deployment is never a template"),
            (
                "run: a/b\n    batch: {max_events: 1, max_wait_seconds: 1}\n    debounce: {wait_seconds: 1}",
                "only one of",
            ),
            ("run: a/b\n    dedupe_seconds: 5", "belongs to a `dedupe_key`"),
            ("run: a/b\n    priority: high", "write a whole number"),
            ("run: a/b\n    rate: 0/minute", "write a rate"),
            ("run: a/b\n    enabled: 'no'", "write true or false"),
            ("run: a/b\n    parameters: [1]", "write a mapping"),
            ("run: a/b\n    tests: [{runs: []}]", "name `event`"),
            ("run: a/b\n    tests: [{event: {}}]", "name what must come of it"),
            ("run: a/b\n    tests: [{event: {}, failed: sujbect}]", "write 'type', 'source', 'subject' or 'when'"),
            (
                "run: a/b\n    correlate: {all: {a: x, b: y}, key: '{{ event.id }}', within_seconds: 1}",
                "leave out `on`",
            ),
        ],
    )
    def test_say_what_to_do(self, tmp_path: Path, keys: str, said: str) -> None:
        found = problems(tmp_path, f"rules:\n  - name: r\n    on: '*'\n    {keys}\n")
        assert any(said in problem for problem in found), found
        assert all("rule 'r'" in problem or "stands there twice" in problem for problem in found)

    def test_of_a_rule_without_any_type_say_so(self, tmp_path: Path) -> None:
        (problem,) = problems(tmp_path, "rules: [{name: r, run: a/b}]")
        assert "name `on`: a glob on the event's type" in problem

    def test_of_watched_folders_say_what_is_there_instead(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        found = problems(tmp_path, "sources:\n  files:\n    a: {path: gone}\n    b: {path: file}\n")
        assert found[0].startswith(
            f"3: sources.files.a.path: there is no folder {tmp_path / 'gone'} — create it (mkdir -p)"
        )
        assert found[1].startswith(f"4: sources.files.b.path: {tmp_path / 'file'} is a file, not a folder")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_of_a_folder_that_may_not_be_read_say_so(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o000)
        (problem,) = problems(tmp_path, "sources:\n  files:\n    a: {path: closed}\n")
        assert "may not be read" in problem

    @pytest.mark.parametrize(
        "text", ["- a", "text", "rules: {a: b}", "rules: text", "sources: []", "sources: {files: 3}"]
    )
    def test_of_the_wrong_shape_are_refused(self, tmp_path: Path, text: str) -> None:
        assert problems(tmp_path, text)

    @pytest.mark.parametrize(
        "kind", ["redis: {a: {stream: s, type: sluice.file.arrived}}", "http: {a: {type: Sluice.x}}"]
    )
    def test_cannot_give_messages_a_type_of_sluices_own(self, tmp_path: Path, kind: str) -> None:
        (problem,) = problems(tmp_path, f"sources:\n  {kind}\n")
        assert "types that begin with `sluice.` are Sluice's own" in problem


NAMES = ("sluice.events", "sluice.resume")


class TestTheProjectItself:
    def test_may_have_a_name_and_say_where_its_flows_stand(self, tmp_path: Path) -> None:
        project = load(tmp_path, "name: orders-2\nflows: [flows, acme.pipelines]\n")
        assert project.name == "orders-2"
        assert project.flows == ("flows", "acme.pipelines")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("name: My Orders\n", "name: 'My Orders' does not fit — write lower-case letters, digits and `-`"),
            ("name: 5\n", "name: 5 does not fit"),
            ("flows: flows\n", "flows: 'flows' does not fit — write a list"),
            ("flows: [1]\n", "flows.0: 1 does not fit"),
        ],
    )
    def test_and_what_does_not_fit_is_told(self, tmp_path: Path, text: str, said: str) -> None:
        (problem,) = problems(tmp_path, text)
        assert problem.startswith(f"1: {said}")

    def test_with_a_name_has_channels_of_its_own_beside_the_streams(self, tmp_path: Path) -> None:
        sources = load(tmp_path, "name: orders\n").sources
        for project, channels in (("orders", {"sluice.events.orders", "sluice.resume.orders"}), (None, set(NAMES))):
            found = sources.redis_with_defaults(project=project).values()
            assert {source.channel for source in found} == channels
            assert {source.stream for source in found} == set(NAMES)
        named = load(tmp_path, "sources:\n  redis:\n    own: {channel: sluice.events}\n").sources
        assert [source.channel for source in named.redis_with_defaults(project="orders").values()] == [
            "sluice.events",
            "sluice.resume.orders",
        ]

    def test_a_type_or_a_watch_that_no_event_comes_from_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        sources = "sources:\n  files:\n    inbox: {path: in}\n    more: {path: more, type: sluice.file.seen}\n"
        (tmp_path / "more").mkdir()
        rules = (
            "rules:\n  - {name: a, on: sluice.file.arived, run: x/y}\n"
            "  - {name: b, on: '*', source: files/inbx, run: x/y}\n"
            "  - {name: c, on: [sluice.file.seen, 'sluice.*', order.created], source: ['files/*', shop], run: x/y}\n"
        )
        first, second = problems(tmp_path, sources + rules)
        assert "no event has the type 'sluice.file.arived' — did you mean `sluice.file.arrived`?" in first
        assert "rule 'b': source: no watched folder is the source 'files/inbx' — did you mean `files/inbox`?" in second

    def test_all_globs_at_fault_are_told_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        text = "sources:\n  files:\n    a:\n      path: in\n      include: ['/x', '[', '*.csv']\n"
        (problem,) = problems(tmp_path, text)
        assert "'/x' is relative to the watch" in problem
        assert "'[' has a bracket" in problem


class TestEndpoints:
    def test_are_named_by_module_and_name(self, tmp_path: Path) -> None:
        assert load(tmp_path, "endpoints: acme.web:app.router\n").endpoints == "acme.web:app.router"
        for wrong in ("web", "web/py:router", "3", "[web:router]"):
            (problem,) = problems(tmp_path, f"endpoints: {wrong}\n")
            assert problem.startswith("1: endpoints: ")
            assert "write `module:name`" in problem


class TestTestsBesideTheRules:
    def test_that_fail_are_told_with_their_line(self, tmp_path: Path) -> None:
        project = load(
            tmp_path, "rules:\n" + RULE + "    tests:\n      - name: mine\n        event: {type: x}\n        runs: []\n"
        )
        (problem,) = run_rule_tests(project)
        assert problem == f"{project.path}:6: rule 'r': tests.0: the test 'mine' failed: 0 expected of `run`, 1 found"


class TestTheSchema:
    def test_is_the_one_that_lies_beside_the_default_project(self, checkout: Path) -> None:
        published = json.loads((checkout / "config" / "sluice.schema.json").read_text())
        assert published == project_schema(), "print it again: sluice schema > config/sluice.schema.json"

    def test_is_a_good_schema_and_takes_the_default_project(self) -> None:
        Draft202012Validator.check_schema(project_schema())
        Draft202012Validator(project_schema()).validate(read_yaml(DEFAULT_PROJECT).data)

    @pytest.mark.parametrize(
        "rule",
        [
            {"name": "r", "on": ["a", "b"], "run": "a/b", "rate": "5/second", "after_seconds": "{{ event.data.s }}"},
            {"name": "r", "on": "a", "do": [{"run": "a/b"}, {"resume": {"key": "k", "input": "{{ event.data }}"}}]},
            {"name": "r", "correlate": {"all": {"a": "x", "b": ["y"]}, "key": "k", "within_seconds": 5}, "run": "a/b"},
        ],
    )
    def test_takes_what_the_loader_takes(self, rule: dict[str, object]) -> None:
        Draft202012Validator(project_schema()).validate({"rules": [rule]})

    @pytest.mark.parametrize("rule", [{"nme": "r"}, {"name": "r", "on": 3}, {"name": "r", "on": "a", "run": "x"}])
    def test_refuses_what_the_loader_refuses(self, rule: dict[str, object]) -> None:
        assert list(Draft202012Validator(project_schema()).iter_errors({"rules": [rule]}))

    def test_explains_its_keys(self) -> None:
        rule = project_schema()["$defs"]["RuleSpec"]["properties"]
        assert all("description" in rule[key] for key in ("on", "when", "stop", "dedupe_key", "priority"))
