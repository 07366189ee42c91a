"""The first reading of a file: types, counts and bad rows, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sluice.budgets import Budget
from sluice.loading.checking.inspection import EXAMPLES, Inspection, begin, inspect, said_of
from sluice.loading.contracts.contract import Contract, parse_contract
from sluice.loading.file_rows import FileRows, file_rows
from sluice.loading.reading.batch import BadRow
from sluice.loading.reading.source import members

FIELDS = [
    {"name": "id", "type": "integer", "constraints": {"unique": True}},
    {"name": "n", "type": "integer", "constraints": {"minimum": 0}},
]
Rows = Callable[[str], FileRows]


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Rows]:
    """The rows of a file with this text."""
    with ExitStack() as stack:

        def written(text: str) -> FileRows:
            path = tmp_path / "x.csv"
            path.write_text(text)
            file = stack.enter_context(path.open("rb"))
            return file_rows(list(members(file, path.name, Budget())), None, path.name)

        yield written


def contract(*fields: dict[str, Any], **schema: Any) -> Contract:
    return parse_contract({"schema": {"fields": list(fields), **schema}})


def bad(found: Inspection) -> list[tuple[int, str | None, str]]:
    return [(row.line, row.column, row.reason) for _, row in found.examples]


def test_types_are_those_that_give_every_value_back(rows: Rows) -> None:
    found = inspect(rows("id,code,when\n1,007,x\n2,012,\n"), None)
    assert [one.type for one in found.columns] == [pa.int64(), pa.string(), pa.string()]
    assert (found.rows, found.bad, [one.nulls for one in found.profiles]) == (2, 0, [0, 0, 1])


def test_bad_rows_are_counted_with_the_line_and_the_reason(rows: Rows) -> None:
    found = inspect(rows("id,n\n1,5\n2,x\n3,-1\n4,5,6\n"), contract(*FIELDS))
    assert (found.rows, found.bad) == (4, 3)
    assert bad(found) == [
        (3, "n", "is not an integer of 64 bits"),
        (4, "n", "is below 0"),
        (5, None, "3 fields where the header names 2: a field with the delimiter in it must be quoted"),
    ]
    assert found.refusal("line") == "x.csv, line 3, column 'n': 'x' is not an integer of 64 bits (and 2 more of 4 rows)"


def test_a_row_that_repeats_an_earlier_one_is_found_when_all_were_read(rows: Rows) -> None:
    found = inspect(rows("id,n\n1,5\n2,5\n1,5\n"), contract(*FIELDS))
    assert bad(found) == [(4, None, "the contract says `unique`, and an earlier row has the same 'id'")]


def test_a_key_of_several_columns_is_told_once(rows: Rows) -> None:
    keyed = contract({"name": "id"}, {"name": "n"}, primaryKey=["id", "n"])
    assert bad(inspect(rows("id,n\n1,5\n1,6\n1,5\n"), keyed)) == [(4, None, "an earlier row has the same key (id, n)")]


def test_a_value_that_the_table_does_not_hold_is_bad(rows: Rows) -> None:
    found = inspect(rows("id,n\n1,5\n99999,5\n"), None, types=[pa.int16(), None])
    assert [line for line, _, _ in bad(found)] == [3]


def test_only_the_first_bad_rows_are_kept(rows: Rows) -> None:
    found = inspect(rows("id,n\n" + "".join(f"{row},x\n" for row in range(EXAMPLES + 5))), contract(*FIELDS))
    assert (found.bad, len(found.examples)) == (EXAMPLES + 5, EXAMPLES)


def test_the_first_rows_settle_whether_times_have_an_offset(rows: Rows) -> None:
    timed = contract({"name": "at", "type": "datetime"}, {"name": "n", "type": "integer"})
    for value, zone in (("2024-01-01T10:00:00Z", "UTC"), ("2024-01-01T10:00:00", None)):
        text = rows(f"at,n\n{value},1\n")
        found = begin(text, timed)
        assert not found.types_known
        found.look_ahead(text)
        assert found.types_known
        assert found.columns[0].type == pa.timestamp("us", zone)


def test_a_long_value_is_cut_in_the_sentence() -> None:
    row = BadRow(3, "n", "x" * 100, "is not a number")
    assert said_of("x.csv", row, "line") == f"x.csv, line 3, column 'n': {'x' * 60!r} is not a number"
    assert said_of("x.csv", BadRow(3, None, None, "is cut off"), "row") == "x.csv, row 3: is cut off"
