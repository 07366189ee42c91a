"""Links to Prefect's UI open the version that its address alone opens."""

from __future__ import annotations

import pytest

from services.home.prefect_pages import run_page


@pytest.mark.parametrize(
    ("ui", "page"),
    [
        ("http://127.0.0.1:4200", "http://127.0.0.1:4200/v2/runs/flow-run/1"),
        ("https://x.example/prefect/", "https://x.example/prefect/v2/runs/flow-run/1"),
        ("https://x.example/v2", "https://x.example/v2/runs/flow-run/1"),
        (
            "https://app.prefect.cloud/account/a/workspace/w",
            "https://app.prefect.cloud/account/a/workspace/w/runs/flow-run/1",
        ),
    ],
)
def test_the_page_of_a_run(ui: str, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_SERVER_UI_V2_ENABLED", raising=False)
    assert run_page(ui, "1") == page


def test_where_the_old_ui_is_the_default_links_open_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_UI_V2_ENABLED", "false")
    assert run_page("http://x", "1") == "http://x/runs/flow-run/1"
