"""What the documents show can be used as it stands."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
import yaml

from config.project import load_project
from config.settings import CHECKOUT
from services.common.reasons import REASONS
from services.deployments.declared import read_declarations
from services.deployments.project_check import endpoint_problems
from sluice.loading.columns.load_column import check_fields
from sluice.loading.contracts.contract import (
    Constraints,
    ContractField,
    FileDialect,
    FileSchema,
    LoadRules,
    Mask,
    parse_contract,
)

DOCUMENTS = [
    "README.md",
    "README.zh-CN.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/benchmarks.md",
    "docs/executor.md",
    "docs/existing-project.md",
    "docs/flows.md",
    "docs/glossary.md",
    "docs/guarantees.md",
    "docs/http.md",
    "docs/monitoring.md",
    "docs/operations.md",
    "docs/scaling.md",
    "docs/security.md",
    "docs/tutorial.md",
]


def blocks(document: str, language: str) -> list[str]:
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize(("document", "name"), [("README.md", "ask-first"), ("docs/flows.md", "release")])
def test_the_flow_that_is_shown_can_be_deployed(document: str, name: str, tmp_path: Path) -> None:
    (source,) = [block for block in blocks(document, "python") if "@flow" in block]
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "shown.py").write_text(source, encoding="utf-8")
    (one,) = read_declarations(tmp_path, environment="development").deployments
    assert one.flow == name


async def test_the_routes_that_are_shown_are_served(tmp_path: Path) -> None:
    (source,) = [block for block in blocks("docs/flows.md", "python") if "APIRouter" in block]
    (named,) = [block for block in blocks("docs/flows.md", "yaml") if block.startswith("endpoints:")]
    (tmp_path / "web.py").write_text(source, encoding="utf-8")
    (tmp_path / "sluice.yaml").write_text(named, encoding="utf-8")
    assert endpoint_problems(load_project(tmp_path / "sluice.yaml", home=tmp_path), tmp_path) == []

    (server,) = [block for block in blocks("docs/flows.md", "python") if "create_app" in block]
    names: dict[str, object] = {"__name__": "own_server"}
    exec(server, names)
    transport = httpx.ASGITransport(names["app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/hello")).json() == {"hello": "world"}
        assert (await client.get("/api/health")).json() is True


def test_the_rule_that_is_shown_is_valid(tmp_path: Path) -> None:
    (shown,) = blocks("README.md", "yaml")
    (tmp_path / "sluice.yaml").write_text(shown, encoding="utf-8")
    project = load_project(tmp_path / "sluice.yaml", home=tmp_path / ".sluice")
    assert [rule["name"] for rule in yaml.safe_load(shown)["rules"]] == ["big-orders"]
    assert len(project.rules) == 1


def test_the_contract_that_is_shown_can_be_used() -> None:
    (shown,) = blocks("docs/contracts.md", "yaml")
    contract = parse_contract(yaml.safe_load(shown))
    assert [*contract.problems(), *check_fields(contract)] == []


def test_every_key_of_a_contract_is_documented() -> None:
    text = (CHECKOUT / "docs" / "contracts.md").read_text(encoding="utf-8") + (
        CHECKOUT / "docs" / "formats.md"
    ).read_text(encoding="utf-8")
    for part in (ContractField, FileDialect, FileSchema, LoadRules, Constraints, Mask):
        for name, one in part.model_fields.items():
            if name not in {"title", "description", "name"}:
                assert one.alias or name in text, name


def test_every_line_of_the_threat_model_has_its_tests() -> None:
    """Where a line says that somebody cannot do something, it names tests that are there."""
    held = ""
    found = 0
    for line in (CHECKOUT / "docs" / "security.md").read_text(encoding="utf-8").splitlines():
        if not line.startswith("| ") or line.startswith(("| --- ", "|  | what ", "| | what ")):
            continue
        who, what, by = (part.strip() for part in line.strip("|").split("|"))
        held = held if by == "the same" else by
        if who == "can" and held in {"", "—"}:
            assert by == "—", what
            continue
        tests = re.findall(r"`(tests/[^`]+)`", held)
        assert tests, what
        assert all((CHECKOUT / test).is_file() for test in tests), what
        found += 1
    assert found > 50


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file(document: str) -> None:
    path = CHECKOUT / document
    targets = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert not missing


def test_the_glossary_has_each_term_once_in_order_and_on_one_line() -> None:
    text = (CHECKOUT / "docs/glossary.md").read_text(encoding="utf-8")
    lines = text.partition("## Terms\n\n")[2].splitlines()
    terms = [found[1] for line in lines if (found := re.match(r"- \*\*(.+?)\*\*: .+\.$", line))]
    assert len(terms) == len(lines)
    assert terms == sorted(set(terms))
    assert max(map(len, lines)) <= 120


def walks() -> list[list[list[str]]]:
    """The tables of docs/architecture.md that show a walk: rows of module, function, what it does, and what it asks."""
    text = (CHECKOUT / "docs/architecture.md").read_text(encoding="utf-8")
    tables = text.split("| step | module | function |")[1:]
    rows = [re.findall(r"^\| \d+ \|(.*)\|$", table.split("\n\n")[0], re.MULTILINE) for table in tables]
    return [[[cell.strip(" `") for cell in row.split("|")] for row in table] for table in rows]


def names_in(module: str) -> set[str]:
    """Everything that the module defines (``Class.method`` too) or uses by name."""
    tree = ast.parse((CHECKOUT / module).read_text(encoding="utf-8"))
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found |= {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            functions = (one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}.{function.name}" for function in functions}
    return found


@pytest.mark.parametrize(("walk", "most"), list(zip(walks(), (15, 8), strict=True)), ids=["file", "signal"])
def test_a_walk_through_the_code_is_as_it_is_drawn(walk: list[list[str]], most: int) -> None:
    assert 1 < len(walk) <= most
    for module, function, _, asks in walk:
        assert function in names_in(module), f"{module} has no {function}"
        for asked in re.findall(r"[\w.]+", asks):
            assert asked.rpartition(".")[2] in names_in(module), f"{module} does not ask {asked}"
    for (module, function, does, _), (next_module, next_function, *_) in pairwise(walk):
        calls = next_function.rpartition(".")[2] in names_in(module)
        is_called_back = function.partition(".")[0] in names_in(next_module)
        assert calls or is_called_back or does.endswith("⇒"), f"{module} leads to no {next_function}"


def test_every_reason_stands_in_the_runbook_with_its_level_and_remedy() -> None:
    rows = [line for line in (CHECKOUT / "docs/operations.md").read_text().splitlines() if line.startswith("| `")]
    wanted = [
        f"| `{code}` | {kind.level.replace('-', ' ')}{' (every)' if kind.every else ''} | {kind.remedy} |"
        for code, kind in REASONS.items()
    ]
    assert [row for row in wanted if row not in rows] == []
