"""Opening a workbook: its sheets and rows, and a sentence for what is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading.errors import RefusedFile
from sluice.loading.formats.spreadsheets.workbook import CellError, Workbook, open_workbook
from sluice.loading.reading.source import members
from tests.unit.sluice.loading.spreadsheets import number, row, text, write_ods, write_xlsx

DATA = Path(__file__).parent / "data"


@contextmanager
def opened(path: Path, **budget: int) -> Iterator[Workbook]:
    with path.open("rb") as file:
        (member,) = members(file, path.name, Budget(**budget))
        yield open_workbook(member)


def refusal(path: Path, **budget: int) -> str:
    with pytest.raises((RefusedFile, OverBudget)) as caught, opened(path, **budget):
        pass
    return str(caught.value)


def test_sheets_are_known_in_order_with_those_that_are_shown(tmp_path: Path) -> None:
    sheets = {"one": row(text("a")), "two": "", "three": row(text("c"))}
    with opened(write_xlsx(tmp_path / "x.xlsx", sheets, hidden=frozenset({"three"}))) as book:
        assert (book.names, book.visible) == (["one", "two", "three"], ["one", "two"])
        assert [book.is_filled(name) for name in book.names] == [True, False, True]


def test_rows_have_their_numbers_and_an_empty_cell_is_none(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "x.xlsx", {"S": row(text("a", place="B2"), text("", place="C2"), place=2)})
    with opened(path) as book:
        assert [one for one in book.rows("S")() if any(one[1])] == [(2, [None, "a", None])]


def test_an_error_is_a_cell_of_its_own(tmp_path: Path) -> None:
    path = write_xlsx(
        tmp_path / "x.xlsx", {"S": row(text("a")) + row(number("#N/A", attributes='t="e"')) + row("<c><f>1</f></c>")}
    )
    with opened(path) as book:
        found = [cells for _, cells in book.rows("S")()]
    assert [isinstance(cells[0], CellError) for cells in found] == [False, True, True]
    assert found[1] == ["#N/A"]


def test_an_xls_file_is_read_too() -> None:
    with opened(DATA / "errors.xls") as book:
        cells = [cell for name in book.names for _, row_ in book.rows(name)() for cell in row_]
    assert any(isinstance(cell, CellError) for cell in cells)
    assert "block_bytes" in refusal(DATA / "orders.xls", block_bytes=1000)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.xlsx", b"\xd0\xcf\x11\xe0rest", "is protected by a password, or is an .xls file"),
        ("x.xls", b"PK\x03\x04", "is no .xls file but a newer Excel file (.xlsx)"),
        ("x.xlsx", b"id,name\n", "is no .xlsx file but something that begins "),
        ("x.xls", b"\xd0\xcf\x11\xe0" * 200, "is no readable spreadsheet"),
        ("x.xlsx", b"PK\x03\x04" + b"x" * 100, "is no readable spreadsheet"),
        ("x.ods", b"PK\x05\x06" + bytes(18), "is no readable spreadsheet"),
    ],
)
def test_what_is_no_workbook_is_told_in_a_sentence(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refusal(tmp_path / name)


def test_a_workbook_that_is_too_large_is_not_loaded(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "x.xlsx", {"S": row(text("a"))})
    assert f"block_bytes = {path.stat().st_size - 1}" in refusal(path, block_bytes=path.stat().st_size - 1)
    far = '<table:table-cell table:number-columns-repeated="16000"/>'
    value = '<table:table-cell office:value-type="float" office:value="1"/>'
    rows = f"<table:table-row>{far}{value}</table:table-row>" * 40
    path = write_ods(tmp_path / "x.ods", f'<table:table table:name="T">{rows}</table:table>')
    assert "there are 640040 cells" in refusal(path, block_bytes=10_000_000)
