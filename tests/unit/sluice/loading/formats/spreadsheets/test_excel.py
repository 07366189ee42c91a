"""Spreadsheets: sheet and row of names are never guessed, no error becomes an empty cell, no sheet is too large."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.sluice.loading.readings import refusal, rows, seen, table, written
from tests.unit.sluice.loading.spreadsheets import number, row, text, write_ods, write_xlsx

DATA = Path(__file__).parent / "data"
HEAD = row(text("id"), text("name"))


def xlsx(tmp_path: Path, *content: str, name: str = "x.xlsx") -> Path:
    return write_xlsx(tmp_path / name, {"Sheet1": "".join(content)})


def cell(kind: str, value: str = "", shown: str = "", more: str = "") -> str:
    attribute = {"float": "value", "date": "date-value", "boolean": "boolean-value", "time": "time-value"}.get(kind)
    holds = f' office:{attribute}="{value}"' if attribute else ""
    head = f'<table:table-cell office:value-type="{kind}"{holds} {more}>'
    return f"{head}<text:p>{shown or value}</text:p></table:table-cell>"


def ods_row(*cells: str, times: int = 1) -> str:
    repeated = f' table:number-rows-repeated="{times}"' if times > 1 else ""
    return f"<table:table-row{repeated}>{''.join(cells)}</table:table-row>"


def ods(tmp_path: Path, *content: str) -> Path:
    return write_ods(tmp_path / "x.ods", f'<table:table table:name="T1">{"".join(content)}</table:table>')


def test_a_sheet_of_an_xlsx_file_with_the_types_of_its_cells(tmp_path: Path) -> None:
    path = xlsx(
        tmp_path,
        row(*map(text, ["id", "name", "price", "paid", "on", "at", "mixed"])),
        row(
            number("1"), text(" Zoë "), number("1.5"), number("1", attributes='t="b"'),
            number("45418", attributes='s="1"'), number("45418.297", attributes='s="2"'), text("007"),
        ),
        row(),
        row(
            number("2"), "<c/>", number("2"), number("0", attributes='t="b"'), number("36525", attributes='s="1"'),
            number("45419", attributes='s="2"'), number("7"),
        ),
        name="x.XLSX",
    )  # fmt: skip
    found, lines, reading = seen(path)
    assert found.schema.types == [
        pa.int64(), pa.string(), pa.float64(), pa.bool_(), pa.date32(), pa.timestamp("us"), pa.string()
    ]  # fmt: skip
    assert found.to_pylist()[0] | {"at": None} == {
        "id": 1, "name": " Zoë ", "price": 1.5, "paid": True, "on": dt.date(2024, 5, 6), "at": None, "mixed": "007"
    }  # fmt: skip
    assert found.column("mixed").to_pylist() == ["007", "7"]
    assert lines == [2, 4]
    assert (reading.unit, reading.evidence["sheet"]) == ("row", "Sheet1")


def test_a_sheet_of_an_xls_file_with_the_types_of_its_cells() -> None:
    found, lines, _ = seen(DATA / "orders.xls")
    assert lines == [2, 4]
    assert found.to_pylist() == [
        {
            "id": 1, "name": "Zoë", "price": 1.5, "paid": True, "on": dt.date(2024, 5, 6),
            "at": dt.datetime.fromisoformat("2024-05-06T07:08"), "time": dt.time(10, 20, 30),
        },
        {
            "id": 2, "name": "Ömer", "price": 2.0, "paid": False, "on": dt.date(1999, 12, 31),
            "at": dt.datetime.fromisoformat("2024-05-07"), "time": None,
        },
    ]  # fmt: skip


def test_a_sheet_of_an_ods_file_with_the_types_of_its_cells(tmp_path: Path) -> None:
    path = ods(
        tmp_path,
        ods_row(*(cell("string", shown=name) for name in ("id", "on", "ok", "note"))),
        ods_row(
            cell("float", "1.5", "1,50"), cell("date", "2024-05-06", "06.05.24"), cell("boolean", "true"),
            cell("string", shown="ä"),
        ),
        ods_row("<table:table-cell/>", times=3),
        ods_row(
            cell("float", "2"), cell("date", "1999-12-31"), cell("boolean", "false"),
            '<table:table-cell table:number-columns-repeated="16000"/>',
        ),
        ods_row('<table:table-cell table:number-columns-repeated="16384"/>', times=1_048_000),
    )  # fmt: skip
    found, lines, _ = seen(path)
    assert found.to_pylist() == [
        {"id": 1.5, "on": dt.date(2024, 5, 6), "ok": True, "note": "ä"},
        {"id": 2.0, "on": dt.date(1999, 12, 31), "ok": False, "note": None},
    ]
    assert lines == [2, 6]


def test_a_sheet_may_have_any_name(tmp_path: Path) -> None:
    content = ods_row(cell("string", shown="id")) + ods_row(cell("float", "1"))
    path = write_ods(tmp_path / "x.ods", f'<table:table table:name="A &amp; &quot;B&quot; é">{content}</table:table>')
    assert seen(path)[2].evidence["sheet"] == 'A & "B" é'
    path = write_xlsx(tmp_path / "x.xlsx", {"A &amp; é": HEAD + row(number("1"), text("a"))})
    assert seen(path)[2].evidence["sheet"] == "A & é"


def test_the_strict_form_of_the_standard_is_read_too(tmp_path: Path) -> None:
    import zipfile

    path = xlsx(tmp_path, HEAD, row(number("1"), text("a")))
    strict = tmp_path / "strict.xlsx"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(strict, "w") as other:
        for name in archive.namelist():
            content = archive.read(name).decode()
            for word, instead in (
                (
                    "http://schemas.openxmlformats.org/officeDocument/2006/",
                    "http://purl.oclc.org/ooxml/officeDocument/",
                ),
                ("http://schemas.openxmlformats.org/spreadsheetml/2006/", "http://purl.oclc.org/ooxml/spreadsheetml/"),
            ):
                content = content.replace(word, instead)
            other.writestr(name, content)
    assert rows(strict) == [{"id": 1, "name": "a"}]


def test_a_table_may_begin_anywhere(tmp_path: Path) -> None:
    path = xlsx(
        tmp_path,
        row(text("id", "C5"), text("v", "D5"), place=5),
        row(number("1", "C7"), number("2", "D7"), place=7),
    )
    assert "row 5 is the first" in refusal(path)
    contract = {"dialect": {"headerRows": [5]}}
    found, lines, _ = seen(path, contract)
    assert found.column_names == ["", "", "id", "v"]
    assert lines == [7]


@pytest.mark.parametrize(
    "first",
    [
        row(text("Report of May")),
        row(text("id"), number("2019")),
        row(text("id"), text("ID")),
        row(number("1"), number("2")),
        row(text("id"), text("  ")),
    ],
)
def test_a_first_row_that_does_not_name_all_columns_is_ambiguous(tmp_path: Path, first: str) -> None:
    path = xlsx(tmp_path, first, HEAD, row(number("1"), number("2")))
    message = refusal(path)
    assert "row 1 is the first with values" in message
    assert "headerRows: [2]" in message
    assert rows(path, {"dialect": {"headerRows": [2]}}) == [{"id": 1, "name": 2}]


def test_a_first_row_of_text_above_text_alone_may_be_a_row(tmp_path: Path) -> None:
    people = [row(text("Ann"), text("Oslo")), row(text("Bob"), text("Rome"))]
    path = xlsx(tmp_path, *people)
    assert "row 1 can be the names of the columns or a row" in refusal(path)
    assert rows(path, {"dialect": {"header": False}}) == [{"A": "Ann", "B": "Oslo"}, {"A": "Bob", "B": "Rome"}]
    assert rows(path, {"dialect": {"header": True}}) == [{"Ann": "Bob", "Oslo": "Rome"}]
    assert len(rows(xlsx(tmp_path, row(text("Name"), text("Town")), *people))) == 2
    assert rows(xlsx(tmp_path, row(text("Ann"), text("2024")), row(text("Bob"), number("1")))) == [
        {"Ann": "Bob", "2024": 1}
    ]


def test_without_a_row_of_names_the_contract_names_the_columns(tmp_path: Path) -> None:
    path = xlsx(tmp_path, row(number("1"), number("2"), number("3")))
    assert rows(path, {"dialect": {"header": False}}) == [{"A": 1, "B": 2, "C": 3}]
    contract = {
        "dialect": {"header": False},
        "schema": {"fields": [{"name": "id"}, {"name": "code", "type": "string"}]},
    }
    assert rows(path, contract) == [{"id": 1, "code": "2", "C": 3}]


def test_the_only_sheet_with_values_is_meant_and_of_several_the_contract_says_which(tmp_path: Path) -> None:
    one, two = HEAD + row(number("1"), text("a")), HEAD + row(number("2"), text("b"))
    alone = write_xlsx(tmp_path / "a.xlsx", {"Empty": "", "Data": one, "Lists": two}, hidden=frozenset({"Lists"}))
    found, _, reading = seen(alone)
    assert found.to_pylist() == [{"id": 1, "name": "a"}]
    assert (reading.evidence["sheet"], reading.evidence["other sheets"]) == ("Data", ["Empty", "Lists"])
    several = write_xlsx(tmp_path / "s.xlsx", {"One": one, "Two": two})
    assert 'One or Two; the contract says which, for example `dialect: {sheetName: "One"}`' in refusal(several)
    for dialect in ({"sheetName": "Two"}, {"sheetNumber": 2}):
        assert rows(several, {"dialect": dialect}) == [{"id": 2, "name": "b"}]
    assert "no sheet 'Three' (it has: One, Two)" in refusal(several, {"dialect": {"sheetName": "Three"}})
    assert "no sheet number 3" in refusal(several, {"dialect": {"sheetNumber": 3}})
    assert "row 9, where" in refusal(several, {"dialect": {"sheetNumber": 1, "headerRows": [9]}})
    assert "no visible sheet" in refusal(write_xlsx(tmp_path / "e.xlsx", {"Empty": ""}))


def errors(tmp_path: Path, kind: str) -> Path:
    if kind == "xls":
        return DATA / "errors.xls"
    if kind == "ods":
        error = cell("string", shown="#DIV/0!", more='calcext:value-type="error" office:string-value=""')
        return ods(tmp_path, ods_row(cell("string", shown="a")), ods_row(cell("float", "5")), ods_row(error))
    return xlsx(tmp_path, row(text("a")), row(number("5")), row(number("#DIV/0!", "A3", 't="e"')))


@pytest.mark.parametrize("kind", ["xlsx", "xls", "ods"])
def test_a_cell_with_an_error_is_never_an_empty_one(tmp_path: Path, kind: str) -> None:
    path = errors(tmp_path, kind)
    message = refusal(path)
    assert "cells show errors and have no values (A3 #DIV/0!)" in message
    assert 'missingValues: ["", "#DIV/0!"]' in message
    contract = {"schema": {"fields": [{"name": "a", "type": "integer"}]}}
    assert rows(path, contract) == [{"a": "5"}, {"a": "#DIV/0!"}]


@pytest.mark.parametrize("place", ["XFD1048576", "A1048576", "XFD2"])
def test_a_far_away_cell_is_refused_before_the_sheet_is_loaded(tmp_path: Path, place: str) -> None:
    path = xlsx(tmp_path, row(text("id", "A1")), row(number("1", place), number("2", "XFD1048576")))
    assert "block_bytes" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        ods_row('<table:table-cell table:number-columns-repeated="2000000000"/>', cell("float", "1")),
        ods_row("<table:table-cell/>", times=2_000_000_000) + ods_row(cell("float", "1")),
        ods_row(cell("float", "1"), times=2_000_000_000),
        ods_row(cell("float", "1", more='table:number-columns-repeated="2000000000"')),
    ],
)
def test_a_repeated_cell_is_refused_before_the_sheet_is_loaded(tmp_path: Path, content: str) -> None:
    assert "block_bytes" in refusal(ods(tmp_path, content))


def test_cells_without_a_place_count_on(tmp_path: Path) -> None:
    path = xlsx(tmp_path, HEAD, *(row(number(str(count)), text("x" * 50)) for count in range(30_000)))
    assert table(path, block_bytes=2 * 32 * 30_001).num_rows == 30_000
    assert "60002 cells" in refusal(path, block_bytes=2 * 32 * 30_001 - 1)


def test_texts_of_a_workbook_are_within_the_budget(tmp_path: Path) -> None:
    import zipfile

    path = xlsx(tmp_path, HEAD, row(number("1"), text("a")))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", " " * 20_000_000)
    assert "block_bytes" in refusal(path, block_bytes=10_000_000)
    assert "unpacked_bytes" in refusal(path, unpacked_bytes=10_000_000)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.xls", b"<html><table>", "no .xls file but something that begins b'<html><t'"),
        ("x.xlsx", b"id;name\n1;2\n", "no .xlsx file but something that begins b'id;name"),
        ("x.xls", b"PK\x03\x04whatever", "a newer Excel file"),
        ("x.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "protected by a password, or is an .xls file"),
        ("x.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "no readable spreadsheet"),
        ("x.ods", b"PK\x03\x04" + bytes(100), "no readable spreadsheet"),
        ("x.xlsx", b"PK\x05\x06" + bytes(18), "no readable spreadsheet"),
        ("x.ods", b"", "no .ods file"),
    ],
)
def test_what_is_no_workbook_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    assert said in refusal(written(tmp_path, name, content))


@pytest.mark.parametrize("cut", [100, 400, 900])
@pytest.mark.parametrize("kind", ["xlsx", "xls"])
def test_a_workbook_that_is_cut_off_is_refused(tmp_path: Path, kind: str, cut: int) -> None:
    whole = (DATA / "orders.xls" if kind == "xls" else xlsx(tmp_path, HEAD, row(number("1"), text("a")))).read_bytes()
    assert "spreadsheet" in refusal(written(tmp_path, f"cut.{kind}", whole[:cut]))


def test_a_column_that_the_contract_calls_text_is_text(tmp_path: Path) -> None:
    path = xlsx(
        tmp_path, HEAD, row(number("501"), number("2.5")), row(number("7"), number("45418", attributes='s="1"'))
    )
    contract: dict[str, Any] = {
        "schema": {"fields": [{"name": "id", "type": "string"}, {"name": "name", "type": "string"}]}
    }
    assert rows(path, contract) == [{"id": "501", "name": "2.5"}, {"id": "7", "name": "2024-05-06"}]


@pytest.mark.parametrize("kind", ["xlsx", "ods"])
def test_a_formula_that_was_not_calculated_is_never_an_empty_cell(tmp_path: Path, kind: str) -> None:
    formula, empty = '<c r="B{}"><f>A2*2</f>{}</c>', '<c r="B2" t="str"><f>T(A2)</f><v></v></c>'
    if kind == "xlsx":
        body = [row(text("a"), text("b")), row(number("1"), empty), row(number("2"), formula.format(3, "<v />"))]
        path = xlsx(tmp_path, *body, row(formula.format(4, "")))
    else:
        formula = '<table:table-cell table:formula="of:=[.A2]*2"/>'
        names = ods_row(cell("string", shown="a"), cell("string", shown="b"))
        empty = cell("string", more='table:formula="of:=T([.A2])"')
        body = [names, ods_row(cell("float", "1"), empty), ods_row(cell("float", "2"), formula)]
        path = ods(tmp_path, *body, ods_row("<table:table-cell/>", formula))
    message = refusal(path)
    assert "(B3 a formula that was not calculated, B4 a formula that was not calculated)" in message
    assert "save it with Excel or LibreOffice" in message


@pytest.mark.parametrize("kind", ["xlsx", "ods"])
def test_rows_below_the_first_one_of_merged_cells_are_told(tmp_path: Path, kind: str) -> None:
    if kind == "xlsx":
        merged = (
            '</sheetData><mergeCells count="2"><mergeCell ref="A2:A3"/><mergeCell ref="B2:C2"/></mergeCells><sheetData>'
        )
        path = xlsx(tmp_path, HEAD, row(number("1"), text("x")), row(text("y", "B3")) + merged)
    else:
        spanned = cell("float", "1", more='table:number-rows-spanned="2"')
        names = ods_row(cell("string", shown="id"), cell("string", shown="name"))
        body = [names, ods_row(spanned, cell("string", shown="x"))]
        path = ods(tmp_path, *body, ods_row("<table:covered-table-cell/>", cell("string", shown="y")))
    found, _, reading = seen(path)
    assert found.to_pylist() == [{"id": 1, "name": "x"}, {"id": None, "name": "y"}]
    (told,) = reading.notes
    assert "merged cells (A2" in told
    assert "B2" not in told


@pytest.mark.parametrize("value", ["INF", "-inf", "NaN", "1e999"])
def test_a_number_that_is_none_ends_nothing(tmp_path: Path, value: str) -> None:
    path = xlsx(tmp_path, HEAD, row(number("1"), text("a")), row(number(value), text("b")))
    assert rows(path)[0]["id"] in {1.0, "1"}
