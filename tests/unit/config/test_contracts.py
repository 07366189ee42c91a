"""Contracts in the project file, and in files of the folder beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from config.project import Project, load_project, parse_project
from events.errors import ConfigError

PROJECT = "sources: {}\nrules: []\n"
ORDERS = """
path: orders-*.csv
dialect: {delimiter: ";"}
schema:
  fields:
    - {name: id, type: integer}
    - {name: day, type: date, format: "%d.%m.%Y"}
  primaryKey: id
sluice: {table: orders, mode: upsert}
"""


@pytest.fixture
def project(tmp_path: Path) -> Any:
    def make(text: str = PROJECT, **contracts: str) -> Project:
        (tmp_path / "sluice.yaml").write_text(text)
        for name, content in contracts.items():
            (tmp_path / "contracts").mkdir(exist_ok=True)
            (tmp_path / "contracts" / f"{name}.yaml").write_text(content)
        return load_project(tmp_path / "sluice.yaml", home=tmp_path / "home")

    return make


def problems(project: Any, *arguments: str, **contracts: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        project(*arguments, **contracts)
    return [re.sub(r"/\S*/", "", problem) for problem in caught.value.problems]


def test_contracts_are_read_from_the_project_and_its_folder(project: Any, tmp_path: Path) -> None:
    found = project(PROJECT + 'contracts:\n  - path: "*.json"\n', orders=ORDERS)
    assert found.contract_sources == [str(tmp_path / "sluice.yaml"), str(tmp_path / "contracts")]


def test_every_problem_is_told_with_its_line(project: Any) -> None:
    bad = """
path: orders-*.csv
dialect: {delimitr: ";", header: false, headerRows: [2]}
schema:
  fields:
    - name: id
      type: int
      constraints: {minimum: 1, patern: x}
"""
    other = """
path: "*.x"
dialect: {header: false, headerRows: [2]}
schema:
  fields:
    - {name: a, type: date, format: DD.MM}
    - {name: a, type: string, constraints: {pattern: "(", minimum: 1}}
    - {name: b, type: date, constraints: {minimum: soon}}
    - {name: c, type: integer, constraints: {enum: [1, x]}}
  primaryKey: id
sluice: {mode: upsert}
"""
    assert sorted(problems(project, orders=bad, other=other)) == [
        "orders.yaml:3: dialect.delimitr: unknown key — did you mean `delimiter`?",
        (
            "orders.yaml:7: schema.fields.0.type: 'int' is not known — write 'string', 'integer', 'number', 'boolean',"
            " 'date', 'datetime', 'time', 'year', 'object', 'array' or 'any'"
        ),
        "orders.yaml:8: schema.fields.0.constraints.patern: unknown key — did you mean `pattern`?",
        "other.yaml:10: schema.primaryKey: 'id' is none of the fields",
        "other.yaml:3: dialect.headerRows: there is no header to name a line of, with `header: false`",
        (
            "other.yaml:6: schema.fields.0.format: 'DD.MM' is no format of date — write default, a pattern of strptime"
            " such as %d.%m.%Y"
        ),
        (
            "other.yaml:7: schema.fields.1.constraints.pattern: '(' is no pattern: missing ), unterminated subpattern"
            " at position 0"
        ),
        (
            "other.yaml:7: schema.fields.1.constraints: a minimum or maximum is for numbers and times, and the type is"
            " string"
        ),
        "other.yaml:7: schema.fields.1.name: 'a' is there twice",
        "other.yaml:8: schema.fields.2.constraints: ['soon'] is not a date like 2026-12-31",
        "other.yaml:9: schema.fields.3.constraints: [1, 'x'] is not of the type integer",
    ]


def test_each_contract_names_its_files_and_no_two_the_same(project: Any) -> None:
    assert problems(project, a="sluice: {table: t}\n", b="path: x.csv\n", c="path: x.csv\n") == [
        "a.yaml:1: path: it is missing — name the files that the contract is for, such as `orders-*.csv`",
        "c.yaml:1: path: 'x.csv' is that of the contract in b.yaml:1 too",
    ]


def test_contracts_of_a_project_are_a_list(project: Any) -> None:
    assert problems(project, PROJECT + "contracts: {}\n") == [
        "sluice.yaml:3: contracts: it must be a list — begin each contract with `- path:`"
    ]


def test_text_that_is_no_yaml_is_told(project: Any) -> None:
    assert problems(project, a="path: [\n")[0].startswith("a.yaml:2: this is not YAML")


def test_an_older_text_of_the_project_is_not_held_against_the_contracts_of_today(project: Any, tmp_path: Path) -> None:
    project()
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts" / "a.yaml").write_text("pth: x\n")
    assert parse_project(PROJECT, tmp_path / "sluice.yaml", home=tmp_path / "home").rules.rules == ()
