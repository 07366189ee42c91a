"""Reports of loads as markdown: nothing that a file holds breaks a table, and every number says what it is of."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluice.loading.reporting.pages import artifact_key, bad_rows_page, load_page, trend_page
from sluice.loading.reporting.report import BadRows, LoadReport
from sluice.loading.targets.plan import LoadQuality, PastLoad

BAD = BadRows(2, 8, [{"place": "a.csv, line 3", "column": "n", "value": "x|y", "reason": "is not an integer"}])


def report(**more: object) -> LoadReport:
    return LoadReport(**{"file": "a.csv", "table": "orders", "mode": "append", "rows": 1200, **more})


@pytest.mark.parametrize(("table", "key"), [("orders", "orders"), ("orders_2026", "orders-2026"), ("a1_b2", "a1-b2")])
def test_a_plain_name_of_a_table_is_its_key(table: str, key: str) -> None:
    assert artifact_key(table) == key


def test_different_tables_have_different_keys() -> None:
    tables = ["a_b", "a-b", "A_b", "a__b", "a_b_", "äb", "ä", "订单", "订", "shop.a_b"]
    keys = [artifact_key(one) for one in tables]
    assert len(set(keys)) == len(tables)
    assert all(key and key == key.strip("-") and key.replace("-", "").isascii() for key in keys)


def test_the_page_of_a_load_says_what_was_done_and_why() -> None:
    page = load_page(
        report(
            made=True, bytes=5000, seconds=2.0, bad=BAD, rejected=Path("/in/rejected/a.csv.rejected.csv"),
            evidence={"a.csv": {"delimiter": "';': every row fits"}}, notes=["merged *cells*"],
            columns=[{"column": "n", "type": "integer", "empty_share": 0.25, "least": "1", "most": "9", "top": {"3": 4},
                      "decimals": 2, "masked": "hash"}],
        )
    )  # fmt: skip
    for line in (
        r"| table | orders \(made\) |",
        "| rows | 1,200 |",
        "| rows a second | 600 |",
        r"| bad rows | 2 of 8 \(25.0%\) |",
        "| the bad rows are in | a.csv.rejected.csv |",
        r"- merged \*cells\*",
        "### How a.csv was read",
    ):
        assert line in page
    (column,) = [line for line in page.splitlines() if line.startswith("| n |")]
    assert "integer, 2 decimals, masked: hash" in column
    assert "25.0%" in column
    assert "1 … 9" in column
    assert r"3 \(4\)" in column


def test_a_load_that_took_no_time_has_no_speed() -> None:
    assert "| rows a second | - |" in load_page(report())


def test_no_value_of_a_file_breaks_a_table() -> None:
    page = bad_rows_page("a\n|b.csv", BAD)
    assert page.startswith("2 of 8 rows of a")
    assert "6 rows are loaded" in page
    (row,) = [line for line in page.splitlines() if "line 3" in line]
    assert row.count("|") - row.count("\\|") == 5


def test_trends_show_the_last_loads_and_the_columns_that_have_changed() -> None:
    loads = [
        PastLoad("a.csv", "2026-01-01T10:00:00.5+00:00", LoadQuality(50, 0, {"same": 0.0, "n": 0.0, "old": 0.1})),
        PastLoad("b.csv", "2026-01-02T10:00:00.5+00:00", LoadQuality(100, 100, {"same": 0.0, "n": 0.5})),
    ]
    page = trend_page("orders", loads)
    assert "The last 2 loads into orders" in page
    assert r"| 2026-01-01T10:00:00 | a.csv | █████░░░░░ 50 | 0 \(0.0%\) |" in page
    assert r"| 2026-01-02T10:00:00 | b.csv | ██████████ 100 | 100 \(50.0%\) |" in page
    assert "| n | 0.0% | 50.0% |" in page
    assert "| old | 10.0% | - |" in page
    assert "| same |" not in page


def test_trends_of_nothing_are_a_page_too() -> None:
    assert "The last 0 loads" in trend_page("orders", [])
    empty = PastLoad("a.csv", "2026-01-01T10:00:00+00:00", LoadQuality(0, 0, {}))
    assert r"░░░░░░░░░░ 0 | 0 \(0.0%\)" in trend_page("orders", [empty])
