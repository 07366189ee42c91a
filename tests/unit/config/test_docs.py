"""docs/rules.md says what is so: its examples load, their tests hold, and no key, filter or test is left out."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from config.project import load_project, run_rule_tests
from events.filters import FILTERS, TESTS
from events.rule_model import Batch, Correlate, Debounce, ResumeSpec, RuleSpec, RuleTest, Throttle

DOCS = Path(__file__).resolve().parents[3] / "docs" / "rules.md"
TEXT = DOCS.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.strip().partition("\n")[0][:40])
def test_every_example_loads_and_its_tests_hold(example: str, tmp_path: Path) -> None:
    whole = (
        example
        if re.search(r"^(rules|sources):", example, re.MULTILINE)
        else "rules:\n" + textwrap.indent(example, "  ")
    )
    path = tmp_path / "sluice.yaml"
    path.write_text(whole)
    project = load_project(path, home=tmp_path)
    assert run_rule_tests(project) == []


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 15


@pytest.mark.parametrize("model", [RuleSpec, ResumeSpec, Batch, Debounce, Correlate, Throttle, RuleTest])
def test_every_key_is_named(model: type[RuleSpec]) -> None:
    table = TEXT.partition("## Every key")[2]
    assert [key for key in model.model_fields if f"`{key}`" not in table] == []


@pytest.mark.parametrize("name", sorted({*FILTERS, *TESTS}))
def test_every_filter_and_test_is_named(name: str) -> None:
    assert re.search(rf"`{name}[`(]", TEXT)
