"""How large a sheet is, which cells are errors and which are merged: read off its XML before it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading.errors import RefusedFile
from sluice.loading.formats.spreadsheets import sheet_extent
from sluice.loading.formats.spreadsheets.sheet_extent import (
    UNKNOWN,
    Extent,
    check_cells,
    letters_of,
    ods_extents,
    xlsx_extents,
)
from sluice.loading.reading.source import members
from tests.unit.sluice.loading.spreadsheets import number, row, text, write_ods, write_xlsx


def extents(path: Path, look: Callable[..., dict[str, Extent]] = xlsx_extents, **budget: int) -> dict[str, Extent]:
    with path.open("rb") as file:
        (member,) = members(file, path.name, Budget(**budget))
        with member.open_seekable() as stream:
            return look(stream, member)


def of_rows(tmp_path: Path, *rows: str) -> Extent:
    return extents(write_xlsx(tmp_path / "x.xlsx", {"S": "".join(rows)}))["S"]


@pytest.mark.parametrize(
    ("rows", "size"),
    [
        ([], (0, 0)),
        ([row()], (0, 0)),
        ([row(text("a"), text("b")), row(text("c"))], (2, 2)),
        ([row(text("a", place="C5"))], (5, 3)),
        ([row(place=7), row(text("a"))], (8, 1)),
        ([row(text("a", place="AA1"), text("b"))], (1, 28)),
        (["<x:row xmlns:x='y'><x:c r='B2'/></x:row>"], (2, 2)),
        (["<row r = '3'><c  r = 'B3' t='n' ><v>1</v></c></row>"], (3, 2)),
    ],
)
def test_a_sheet_is_as_large_as_its_last_cells(tmp_path: Path, rows: list[str], size: tuple[int, int]) -> None:
    found = of_rows(tmp_path, *rows)
    assert (found.height, found.width) == size


def test_cells_with_errors_are_known_with_what_they_show(tmp_path: Path) -> None:
    cells = row(
        text("a"),
        number("#DIV/0!", attributes='t="e"'),
        '<c t="e"/>',
        "<c><f>A1+1</f></c>",
        '<c t="str"><f>""</f><v></v></c>',
        "<c><f>1</f><v>1</v></c>",
    )
    assert of_rows(tmp_path, cells).errors == {(0, 1): "#DIV/0!", (0, 2): "an error", (0, 3): UNKNOWN}


def test_merged_cells_that_stand_for_rows_below_are_known(tmp_path: Path) -> None:
    merges = '<mergeCells><mergeCell ref="A2:A4"/><mergeCell ref="B2:C2"/></mergeCells>'
    assert of_rows(tmp_path, row(text("a")), merges).merged == {"A2:A4": 2}


def test_a_tag_may_stand_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet_extent, "_PIECE_BYTES", 7)
    monkeypatch.setattr(sheet_extent, "_LONGEST_TAG", 100)
    rows = [row(number("#N/A", place=f"B{place}", attributes='t="e"')) for place in range(1, 40)]
    found = of_rows(tmp_path, *rows)
    assert (found.height, found.width, len(found.errors)) == (39, 2, 39)
    assert set(found.errors.values()) == {"#N/A"}


def test_too_many_errors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet_extent, "_MOST_ERRORS", 2)
    with pytest.raises(RefusedFile, match="more than 2 cells with errors"):
        of_rows(tmp_path, row(*[number("#N/A", attributes='t="e"')] * 3))


def ods(*cells: str, name: str = "T1") -> str:
    return f'<table:table table:name="{name}"><table:table-row>{"".join(cells)}</table:table-row></table:table>'


VALUE = '<table:table-cell office:value-type="float" office:value="1" {}><text:p>1</text:p></table:table-cell>'


@pytest.mark.parametrize(
    ("cells", "size"),
    [
        ([], (0, 0)),
        ([VALUE.format("")], (1, 1)),
        (['<table:table-cell table:number-columns-repeated="3"/>', VALUE.format("")], (1, 4)),
        ([VALUE.format('table:number-columns-repeated="5"')], (1, 5)),
        (['<table:table-cell table:number-columns-repeated="16384"/>'], (0, 0)),
        ([VALUE.format(""), "</table:table-row><table:table-row table:number-rows-repeated='9'/><table:table-row>",
          VALUE.format("")], (11, 1)),
    ],
)  # fmt: skip
def test_a_sheet_of_an_ods_file_is_as_large_as_its_values(
    tmp_path: Path, cells: list[str], size: tuple[int, int]
) -> None:
    found = extents(write_ods(tmp_path / "x.ods", ods(*cells)), ods_extents)["T1"]
    assert (found.height, found.width) == size


def test_errors_and_merged_cells_of_an_ods_file_are_known(tmp_path: Path) -> None:
    error = '<table:table-cell calcext:value-type="error" office:value-type="string"><text:p>#DIV/0!</text:p>'
    path = write_ods(
        tmp_path / "x.ods",
        ods(
            f"{error}</table:table-cell>",
            '<table:table-cell table:formula="of:=1"/>',
            VALUE.format('table:number-rows-spanned="3"'),
        ),
    )
    found = extents(path, ods_extents)["T1"]
    assert found.errors == {(0, 0): "#DIV/0!", (0, 1): UNKNOWN}
    assert found.merged == {"C1": 1}


def test_the_cells_of_all_sheets_must_fit_in_memory(tmp_path: Path) -> None:
    far = extents(write_xlsx(tmp_path / "x.xlsx", {"far": row(text("a", place="XFD1048576"))}))
    with (tmp_path / "x.xlsx").open("rb") as file:
        (member,) = members(file, "x.xlsx", Budget())
        with pytest.raises(OverBudget, match="there are 17179869184 cells"):
            check_cells(far, member)
        check_cells({}, member)


@pytest.mark.parametrize(("limit", "said"), [("unpacked_bytes", "unpacks to"), ("line_bytes", "its xl/")])
def test_what_a_workbook_unpacks_to_has_limits(tmp_path: Path, limit: str, said: str) -> None:
    path = write_xlsx(tmp_path / "x.xlsx", {"S": row(text("a" * 3000))})
    budget = {limit: path.stat().st_size if limit == "unpacked_bytes" else 100}
    with pytest.raises(OverBudget, match=said):
        extents(path, **budget)


def test_a_workbook_that_declares_entities_is_refused(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "x.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/_rels/workbook.xml.rels", '<!DOCTYPE x [<!ENTITY a "b">]><x/>')
    with pytest.raises(RefusedFile, match="declares entities"):
        extents(path)


@pytest.mark.parametrize(
    ("column", "letters"), [(0, "A"), (25, "Z"), (26, "AA"), (27, "AB"), (701, "ZZ"), (16383, "XFD")]
)
def test_columns_have_letters(column: int, letters: str) -> None:
    assert letters_of(column) == letters
    assert sheet_extent._number_of(letters.encode()) == column


def test_any_bytes_are_an_extent_or_refused(tmp_path: Path) -> None:
    whole = row(number("#DIV/0!", place="B2", attributes='t="e"'), text("a"))
    for place in range(0, len(whole), 3):
        changed: Any = whole[:place] + "\u00ff" + whole[place + 1 :]
        found = of_rows(tmp_path, changed)
        assert found.height >= 0
