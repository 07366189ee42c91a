"""docs/flows.md shows code that is in the flows and their tests, and every flow has its row."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from prefect import Flow

PAGE = (Path(__file__).parents[3] / "docs" / "flows.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```python\n# ((?:flows|tasks|tests)/\S+)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("name", "code"), SHOWN, ids=[name for name, _ in SHOWN])
def test_what_is_shown_is_in_the_file_that_is_named(name: str, code: str, checkout: Path) -> None:
    assert code in (checkout / name).read_text(encoding="utf-8")


def test_every_flow_has_a_row(checkout: Path) -> None:
    files = {path.name for path in (checkout / "flows").glob("[a-z]*.py")}
    assert set(re.findall(r"^\| `(\w+\.py)` \|", PAGE, re.MULTILINE)) == files


def test_every_flow_names_its_runs_and_says_what_it_needs() -> None:
    """As the Prefect UI shows them: a readable name for a run that nobody named, and a description."""
    wanting = []
    for file in sorted((Path(__file__).parents[3] / "flows").glob("[a-z]*.py")):
        module = importlib.import_module(f"flows.{file.stem}")
        for name, found in vars(module).items():
            if isinstance(found, Flow):
                needs = name.startswith("_") or re.search(r"\bneeds?\b", found.description or "", re.IGNORECASE)
                wanting += [] if found.flow_run_name and needs else [f"{file.name}: {name}"]
    assert wanting == []


def test_every_link_within_the_page_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= anchors
