"""What a file's name or content puts on the page of a run hides nothing, and is no markup."""

from __future__ import annotations

from typing import Any

import pytest

from flows import folder_report, ingest_file
from sluice.loading.load import display
from sluice.loading.reporting.report import BadRows, LoadReport
from sluice.loading.targets.plan import LoadQuality, PastLoad
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


def test_what_was_loaded(published: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = f"{HOSTILE}|[a](http://x)"
    bad = BadRows(1, 2, [{"place": hostile, "column": hostile, "value": hostile, "reason": hostile}])
    column = {"column": hostile, "type": "text", "empty": 0, "empty_share": 0.5, "top": {hostile: 2}}
    report = LoadReport(
        hostile, hostile, "append", 1, bad=bad, columns=[column], evidence={hostile: {"x": hostile}}, notes=[hostile]
    )
    loads = [PastLoad(hostile, "2026-11-30T08:00", LoadQuality(1, 1, {hostile: share})) for share in (0.0, 0.5)]
    monkeypatch.setattr(ingest_file, "past_loads", lambda *_: loads)
    ingest_file.publish(report, "sqlite:///none.db")
    markdown, table, trend = published
    assert "50.0%" in trend
    assert not hidden_in(trend, lines=True)
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
    assert not hidden_in(display(name))
