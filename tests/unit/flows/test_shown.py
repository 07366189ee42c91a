"""What a file's name or content puts on the page of a run hides nothing, and is no markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import folder_report, ingest_file
from tests.support.hidden import HOSTILE, hidden_in


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    kept: list[str] = []

    def keep(content: Any, **_options: Any) -> None:
        kept.append(
            content if isinstance(content, str) else "".join(str(part) for row in content for part in row.values())
        )

    for module in (ingest_file, folder_report):
        for name in ("create_markdown_artifact", "create_table_artifact"):
            monkeypatch.setattr(module, name, keep)
    return kept


def test_what_was_loaded(published: list[str]) -> None:
    hostile = f"{HOSTILE}|[a](http://x)"
    ingest_file._publish({"file": hostile, "table": "t"}, [{"column": hostile, "type": "text", "rows": 1}])
    markdown, table = published
    assert r"\|\[a\]\(http://x\)" in markdown
    assert not hidden_in(markdown, lines=True)
    assert not hidden_in(table)


def test_the_report_on_a_folder(published: list[str]) -> None:
    hostile = f"{HOSTILE}` [a](http://x)"
    markdown = folder_report.load.fn([], [hostile])
    assert r"\` \[a\]\(http://x\)" in markdown
    assert not hidden_in(markdown, lines=True)
    assert published[0] == markdown


def test_the_name_of_a_file() -> None:
    name = HOSTILE.replace("\0", "").replace("/", "")
    assert not hidden_in(ingest_file.display(Path(name)))
    assert ingest_file.table_name(Path("a\u202eb.csv")) == "a_b"
