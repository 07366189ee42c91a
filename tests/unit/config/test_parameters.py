from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config.parameters import ParameterFindings, Signature, check_parameters
from config.project import parse_project

SIGNATURES = {
    "ingest/default": Signature(
        {
            "properties": {
                "path": {"type": "string"},
                "size": {"type": "integer"},
                "any": {},
                "ok": {"type": "boolean"},
            },
            "required": ["path"],
        }
    ),
    "open/default": Signature({"properties": {}, "additionalProperties": True}),
    "kept/default": Signature({"properties": {"path": {}}, "required": ["path"]}, frozenset({"path"})),
}


def found(rule: str) -> ParameterFindings:
    project = parse_project(f"rules:\n  - name: r\n    on: '*'\n    {rule}\n", Path("f.yaml"), home=Path("/home"))
    return check_parameters(project, SIGNATURES)


@pytest.mark.parametrize(
    "rule",
    [
        "{run: ingest/default, parameters: {path: x, size: 5, any: [1], ok: true}}",
        "{run: ingest/default, parameters: {path: '{{ event.id }}', size: '{{ event.data.size }}'}}",
        "{run: ingest/default, parameters: '{{ event.data }}'}",
        "{run: open/default, parameters: {whatever: 1}}",
        "{run: kept/default}",
        "{run: nope/default, enabled: false}",
        "{resume: {key: k}}",
    ],
)
def test_what_fits_is_passed_over(rule: str) -> None:
    project = parse_project("rules: [{name: r, on: '*', " + rule[1:] + "]", Path("f.yaml"), home=Path("/home"))
    assert check_parameters(project, SIGNATURES) == ParameterFindings()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            "run: ingest/default\n    parameters: {path: x, pth: y}",
            "f.yaml:5: rule 'r': parameters.pth: ingest/default takes no parameter 'pth' — did you mean `path`?",
        ),
        (
            "run: ingest/default\n    parameters: {size: 1}",
            "f.yaml:5: rule 'r': parameters: ingest/default needs the parameter 'path'",
        ),
        ("run: ingest/default", "f.yaml:2: rule 'r': parameters: ingest/default needs the parameter 'path'"),
        ("run: ingest/default\n    parameters: {path: 5}", "5 does not fit: ingest/default takes string here"),
        (
            "run: ingest/default\n    parameters: {path: x, size: '5'}",
            "'5' does not fit: ingest/default takes integer here",
        ),
        ("run: ingest/default\n    parameters: {path: x, size: true}", "True does not fit"),
        ("run: ingest/default\n    parameters: {path: x, ok: 1}", "1 does not fit"),
        ("do:\n      - {run: ingest/default, parameters: {path: x, b: 1}}", "f.yaml:5: rule 'r': do.0.parameters.b:"),
    ],
)
def test_what_does_not_fit_is_an_error_with_its_line(rule: str, said: str) -> None:
    findings = found(rule)
    assert len(findings.errors) == 1
    assert said in findings.errors[0]


def test_every_misfit_is_told() -> None:
    assert len(found("run: ingest/default\n    parameters: {a: 1, b: 2}").errors) == 3


def test_a_deployment_that_does_not_exist_yet_is_a_warning() -> None:
    findings = found("run: ingest/defualt")
    assert findings.errors == ()
    (warning,) = findings.warnings
    assert warning.startswith("f.yaml:4: rule 'r': run: there is no deployment 'ingest/defualt' yet")
    assert "did you mean `ingest/default`?" in warning


@pytest.mark.parametrize("schema", [{}, {"properties": None}, {"properties": {"a": None}}, {"required": None}])
def test_any_schema_is_borne(schema: dict[str, Any]) -> None:
    project = parse_project("rules: [{name: r, on: '*', run: x/y, parameters: {a: 1}}]", Path("f"), home=Path("/"))
    check_parameters(project, {"x/y": Signature(schema)})
