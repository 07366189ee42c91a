"""What a load did, in one sentence and as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sluice.loading.reporting.report import BadRows, LoadReport, many, type_name

NO_ROWS = "a.csv has no rows: nothing was loaded into orders"


def report(**more: Any) -> LoadReport:
    return LoadReport(**{"file": "a.csv", "table": "orders", "mode": "append", "rows": 2, **more})


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "2 rows of a.csv loaded into the table orders"),
        ({"rows": 1, "mode": "upsert"}, "1 row of a.csv merged into the table orders"),
        ({"mode": "replace"}, "2 rows of a.csv put in the place of those in the table orders"),
        ({"already": True}, "a.csv is in the table orders already: nothing to do"),
        ({"rows": 0, "columns": [{}]}, NO_ROWS),
        ({"rows": 0}, f"{NO_ROWS}; the table is made with the first rows, which show the types"),
        ({"rows": 0, "made": True}, "0 rows of a.csv loaded into the table orders"),
        ({"bad": BadRows(1, 3, []), "rejected": Path("/x/a.csv.rejected.csv")},
         "2 rows of a.csv loaded into the table orders, 1 bad row put into a.csv.rejected.csv"),
    ],
)  # fmt: skip
def test_a_load_is_told_in_one_sentence(said: dict[str, Any], message: str) -> None:
    assert report(**said).message == message


def test_a_report_is_json() -> None:
    told = json.loads(json.dumps(report(bad=BadRows(1, 4, [{"place": "line 2"}]), rejected=Path("/x")).as_dict()))
    assert (told["rejected"], told["bad"]["count"], told["mode"]) == ("/x", 1, "append")
    assert report().as_dict()["rejected"] is None


@pytest.mark.parametrize(("count", "rows", "share"), [(1, 4, 0.25), (0, 4, 0.0), (0, 0, 0.0)])
def test_the_share_of_bad_rows_is_of_all_rows(count: int, rows: int, share: float) -> None:
    assert BadRows(count, rows, []).share == share


@pytest.mark.parametrize(
    ("count", "are", "said"),
    [(0, False, "0 rows"), (1, False, "1 row"), (1, True, "1 row is"), (2, True, "2 rows are")],
)
def test_numbers_have_their_words(count: int, are: bool, said: str) -> None:
    assert many(count, "row", are=are) == said


@pytest.mark.parametrize(
    ("type_", "said"),
    [(pa.int64(), "integer"), (pa.float64(), "real"), (pa.string(), "text"), (pa.date32(), "date32[day]")],
)
def test_types_have_words(type_: pa.DataType, said: str) -> None:
    assert type_name(type_) == said
