"""Opens workbooks: xlsx and ods with calamine, xls with xlrd, whose cells distinguish errors from empty cells."""

from __future__ import annotations

import datetime as dt
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree as ET

from sluice.loading.errors import RefusedFile
from sluice.loading.formats.spreadsheets.sheet_extent import Extent, check_cells, ods_extents, xlsx_extents
from sluice.loading.reading.source import Member
from sluice.loading.showing import content

_OLE: Final = b"\xd0\xcf\x11\xe0"
_XLS_BYTES: Final = 8
"""How many times its size an xls file takes in memory, about."""

Row = tuple[int, list[Any]]


class CellError(str):
    """The text that a cell without a value shows: ``#DIV/0!``."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Workbook:
    """The sheets of a workbook, in order."""

    names: list[str]
    visible: list[str]
    is_filled: Callable[[str], bool]
    rows: Callable[[str], Callable[[], Iterator[Row]]]
    """Loads a sheet by name; the function returned yields its rows with their numbers from 1. An empty cell is None."""
    merged: Callable[[str], dict[str, int]] = lambda _name: {}
    """Returns the cells of a sheet that are merged with cells below, each with the number of its row from 1."""


def open_workbook(member: Member) -> Workbook:
    """Return the workbook. Raises `RefusedFile` for a file that is none, and `OverBudget` if it would be too large."""
    ending = member.name.rpartition(".")[2].lower()
    beginning = member.beginning()
    if ending != "xls" and beginning.startswith(_OLE):
        raise RefusedFile(f"{member.label} is protected by a password, or is an .xls file: save it as it should be")
    if not beginning.startswith(_OLE if ending == "xls" else b"PK"):
        what = (
            "a newer Excel file (.xlsx)"
            if beginning.startswith(b"PK")
            else f"something that begins {content(repr(beginning))}"
        )
        raise RefusedFile(f"{member.label} is no .{ending} file but {what}: name it after what it is, or save it anew")
    with _sentences(member):
        return _open_xls(member) if ending == "xls" else _open_zipped(member, ods=ending == "ods")


def _open_zipped(member: Member, *, ods: bool) -> Workbook:
    import python_calamine as calamine

    size = member.size if member.size is not None else member.packed_size
    member.budget.check("block_bytes", size, f"{member.label} has {size} bytes")
    with member.open_seekable() as stream:
        extents = (ods_extents if ods else xlsx_extents)(stream, member)  # type: ignore[arg-type]
        if ods:  # its sheets are all loaded together
            check_cells(extents, member)
        stream.seek(0)
        book = calamine.CalamineWorkbook.from_filelike(stream)
    kinds = {one.name: one for one in book.sheets_metadata if one.typ == calamine.SheetTypeEnum.WorkSheet}

    def rows(name: str) -> Callable[[], Iterator[Row]]:
        extent = extents.get(name, Extent())
        check_cells({name: extent}, member)
        with _sentences(member):
            sheet = book.get_sheet_by_name(name)
        left = sheet.start[1] if sheet.start else 0
        return lambda: _with_errors(sheet.iter_rows(), left, extent)

    return Workbook(
        list(kinds),
        [name for name, one in kinds.items() if one.visible == calamine.SheetVisibleEnum.Visible],
        lambda name: bool(extents.get(name, Extent()).height),
        rows,
        lambda name: extents.get(name, Extent()).merged,
    )


def _with_errors(rows: Iterator[list[Any]], left: int, extent: Extent) -> Iterator[Row]:
    wrong: dict[int, list[int]] = {}
    for row, column in extent.errors:
        wrong.setdefault(row, []).append(column)
    before = [None] * left
    number = -1
    for number, cells in enumerate(rows):
        found = [*before, *(None if cell == "" else cell for cell in cells)] if left or "" in cells else cells
        for column in wrong.get(number, ()):
            found += [None] * (column + 1 - len(found))
            found[column] = _error(extent, number, column)
        yield number + 1, found
    for row in sorted(wrong):  # calamine ends before rows of formulas that were not calculated
        if row > number:
            yield row + 1, [_error(extent, row, column) for column in range(max(wrong[row]) + 1)]


def _error(extent: Extent, row: int, column: int) -> CellError | None:
    shown = extent.errors.get((row, column))
    return None if shown is None else CellError(shown)


def _open_xls(member: Member) -> Workbook:
    import xlrd

    with member.open() as stream:
        content = stream.read(member.budget.block_bytes // _XLS_BYTES + 1)
    member.budget.check("block_bytes", len(content) * _XLS_BYTES, f"{member.label} has {len(content)} bytes or more")
    book = xlrd.open_workbook(file_contents=content, ragged_rows=True, on_demand=True, logfile=_Nowhere())
    names = book.sheet_names()

    def is_filled(name: str) -> bool:
        with _sentences(member):
            return bool(book.sheet_by_name(name).nrows)

    def rows(name: str) -> Callable[[], Iterator[Row]]:
        with _sentences(member):
            sheet = book.sheet_by_name(name)
        return lambda: (
            (number + 1, [_xls_value(cell, book.datemode) for cell in sheet.row(number)])
            for number in range(sheet.nrows)
        )

    shown = [name for number, name in enumerate(names) if book._sheet_visibility[number] == 0]  # noqa: SLF001
    return Workbook(names, shown, is_filled, rows)


def _xls_value(cell: Any, datemode: int) -> Any:
    import xlrd

    match cell.ctype:
        case xlrd.XL_CELL_EMPTY | xlrd.XL_CELL_BLANK:
            return None
        case xlrd.XL_CELL_TEXT:
            return cell.value or None
        case xlrd.XL_CELL_BOOLEAN:
            return bool(cell.value)
        case xlrd.XL_CELL_ERROR:
            return CellError(xlrd.error_text_from_code.get(cell.value, "an error"))
        case xlrd.XL_CELL_DATE:
            return _xls_date(cell.value, datemode)
        case _:
            return cell.value


def _xls_date(value: float, datemode: int) -> Any:
    import xlrd

    if 0 <= value < 1:
        return (dt.datetime(1900, 1, 1) + dt.timedelta(days=value)).time()  # noqa: DTZ001 - Excel knows no zones
    try:
        found = xlrd.xldate_as_datetime(value, datemode)
    except (xlrd.xldate.XLDateError, OverflowError):
        return value  # no date, whatever its format says
    return found.date() if found.time() == dt.time() else found


class _Nowhere:
    def write(self, _text: str) -> None:
        """What xlrd finds strange is found by the checks of this package."""


@contextmanager
def _sentences(member: Member) -> Iterator[None]:
    import python_calamine
    import xlrd

    known = (
        python_calamine.CalamineError, xlrd.XLRDError, xlrd.compdoc.CompDocError, zipfile.BadZipFile, ET.ParseError,
        NotImplementedError, struct.error, LookupError, AssertionError, TypeError, UnicodeError, EOFError, zlib.error,
    )  # fmt: skip
    try:
        yield
    except python_calamine.PasswordError as error:
        raise RefusedFile(f"{member.label} is protected by a password: save it without one") from error
    except (*known, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise RefusedFile(f"{member.label} is no readable spreadsheet ({error!r}): save it anew") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how calamine's own language ends, no subclass of Exception
            raise
        raise RefusedFile(f"{member.label} is no readable spreadsheet ({error}): save it anew") from error
