"""Reads one sheet of a workbook, from the row with the names of the columns on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import Any, Final

import pyarrow as pa

from sluice.display import visible
from sluice.loading.contracts.contract import Contract, FileDialect
from sluice.loading.errors import AmbiguousFile, RefusedFile
from sluice.loading.formats.columnar.nested import iso_duration
from sluice.loading.formats.headers import check_header
from sluice.loading.formats.spreadsheets.sheet_extent import UNKNOWN, letters_of
from sluice.loading.formats.spreadsheets.workbook import CellError, Workbook, open_workbook
from sluice.loading.reading.batch import Reading, RowBatch
from sluice.loading.reading.source import Member
from sluice.loading.showing import content

_BATCH_ROWS: Final = 5_000
_LARGEST_EXACT: Final = 2**53
_SHOWN: Final = 5
_LOOKED_AT: Final = 1_000
"""Number of rows below the names that are examined to tell names from values."""

Row = tuple[int, list[Any]]


def read_excel(member: Member, contract: Contract | None) -> Reading:
    """Return the reading of the sheet and row of names that the contract says, or that are the only possible ones.

    Cells with errors (``#DIV/0!``) are refused without a contract that has a schema. With one they are texts, so that
    its ``missingValues`` and checks decide.
    """
    workbook = open_workbook(member)
    dialect = contract.dialect if contract is not None else FileDialect()
    name = _sheet(workbook, dialect, member)
    label = f"{member.label}, sheet {visible(name)}"
    sheet = _Sheet(workbook.rows(name), label)
    header, columns = _header(sheet, dialect, _names(contract), label)
    kinds, errors = _look(sheet.below(header), len(columns))
    if errors and (contract is None or contract.file_schema is None):
        raise _refused_errors(errors, label)
    texts = _texts(columns, contract)
    types = [pa.string() if place in texts else _type(kinds[place]) for place in range(len(columns))]

    def batches() -> Iterator[RowBatch]:
        waiting: list[Row] = []
        for row in sheet.below(header):
            waiting.append(row)
            if len(waiting) >= _BATCH_ROWS:
                yield _batch(waiting, columns, types)
                waiting = []
        if waiting:
            yield _batch(waiting, columns, types)

    others = [visible(one) for one in workbook.names if one != name]
    evidence = {"sheet": visible(name), **({"other sheets": others} if others else {}), "row of names": header}
    notes = []
    if merged := [place for place, row in workbook.merged(name).items() if row > header]:
        shown = ", ".join(merged[:_SHOWN]) + (f" and {len(merged) - _SHOWN} more" if len(merged) > _SHOWN else "")
        notes.append(f"merged cells ({shown}): only the first row of each has the value, the rows below it have none")
    return Reading(columns, typed=True, batches=batches, unit="row", evidence=evidence, notes=notes)


def _sheet(workbook: Workbook, dialect: FileDialect, member: Member) -> str:
    names = ", ".join(visible(name) for name in workbook.names) or "none"
    if dialect.sheet_name is not None:
        if dialect.sheet_name not in workbook.names:
            raise RefusedFile(f"{member.label} has no sheet {visible(dialect.sheet_name)!r} (it has: {names})")
        return dialect.sheet_name
    if dialect.sheet_number is not None:
        if dialect.sheet_number > len(workbook.names):
            raise RefusedFile(f"{member.label} has no sheet number {dialect.sheet_number} (it has: {names})")
        return workbook.names[dialect.sheet_number - 1]
    filled = [name for name in workbook.visible if workbook.is_filled(name)]
    if not filled:
        raise RefusedFile(f"{member.label} has no visible sheet with anything in it (its sheets: {names})")
    if len(filled) > 1:
        shown = " or ".join(visible(name) for name in filled)
        raise AmbiguousFile(
            f"{member.label} has several sheets with values: {shown}; the contract says which, for example `dialect: "
            f'{{sheetName: "{visible(filled[0])}"}}`'
        )
    return filled[0]


@dataclass(frozen=True, slots=True)
class _Sheet:
    """The non-empty rows of a sheet, with their numbers from 1."""

    rows: Callable[[], Iterator[Row]]
    label: str

    def below(self, header: int) -> Iterator[Row]:
        for number, cells in self.rows():
            if number > header and any(cell is not None for cell in cells):
                yield number, cells

    def width(self) -> int:
        """The number of columns up to the last one with a value."""
        return max((_filled(cells) for _, cells in self.rows()), default=0)


def _filled(cells: Sequence[Any]) -> int:
    return next((place + 1 for place in reversed(range(len(cells))) if cells[place] is not None), 0)


def _names(contract: Contract | None) -> list[str]:
    return [field.name for field in contract.fields] if contract else []


def _header(sheet: _Sheet, dialect: FileDialect, named: list[str], label: str) -> tuple[int, list[str]]:
    """Return the number of the row with the names, and the names.

    If the contract says that there is no such row, the number is 0 and the names are those of the contract, in its
    order.
    """
    width = sheet.width()
    if dialect.header is False:
        return 0, [named[place] if place < len(named) else letters_of(place) for place in range(width)]
    if dialect.header_rows is not None:
        wanted = dialect.header_rows[0]
        cells = next((cells for number, cells in sheet.rows() if number == wanted), [])
        if not _filled(cells):
            raise RefusedFile(f"{label}: row {wanted}, where the contract's `headerRows` has the names, is empty")
        return wanted, [*map(_named, cells), *[""] * width][:width]
    number, cells = next(sheet.below(0))
    names = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    if len(names) < width or len({name.strip().casefold() for name in names}) < width:
        raise AmbiguousFile(
            f"{label}: row {number} is the first with values, and it does not name all {width} columns once, as text; "
            f"the contract says which row does, for example `dialect: {{headerRows: [{number + 1}]}}`, or that none "
            "does: `dialect: {header: false}`"
        )
    columns = [_named(name) for name in names]
    if not dialect.header and not set(columns) <= set(named):
        _check_names(sheet, number, columns)
    return number, columns


def _check_names(sheet: _Sheet, number: int, columns: list[str]) -> None:
    """Raise `AmbiguousFile` if the row may as well be one of values; text above cells that are not text is certain."""
    rows = [[*cells, *[None] * len(columns)] for _, cells in islice(sheet.below(number), _LOOKED_AT)]
    below = ([row[place] for row in rows if row[place] is not None] for place in range(len(columns)))
    if not any(cells and not any(isinstance(cell, str) for cell in cells) for cells in below):
        texts = [["" if cell is None else _text(cell) for cell in row] for row in rows]
        check_header(columns, texts, label=sheet.label, line=number, unit="row")


def _named(cell: Any) -> str:
    return "" if cell is None else " ".join(_text(cell).split())


def _refused_errors(errors: list[tuple[str, str]], label: str) -> RefusedFile:
    shown = ", ".join(f"{place} {content(text)}" for place, text in errors[:_SHOWN])
    more = f" and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
    unknown = any(text == UNKNOWN for _, text in errors)
    remedy = "save it with Excel or LibreOffice, which calculates them" if unknown else "correct the formulas"
    return RefusedFile(
        f"{label}: cells show errors and have no values ({shown}{more}): {remedy}, or let a contract's schema "
        f'take them for missing: `missingValues: ["", "{content(errors[0][1])}"]`'
    )


def _texts(columns: Sequence[str], contract: Contract | None) -> set[int]:
    """Return the positions of the columns that are text by the contract."""
    fields = [contract.field_of(name) if contract is not None else None for name in columns]
    return {place for place, field in enumerate(fields) if field is not None and field.type == "string"}


def _look(rows: Iterator[Row], width: int) -> tuple[list[set[str]], list[tuple[str, str]]]:
    """Return the kinds of cells in each column, and the cells with errors: their places and what they show."""
    kinds: list[set[str]] = [set() for _ in range(width)]
    errors = []
    for number, cells in rows:
        for place, cell in enumerate(cells[:width]):
            if cell is None:
                continue
            kinds[place].add(_kind(cell))
            if isinstance(cell, CellError):
                errors.append((f"{letters_of(place)}{number}", str(cell)))
    return kinds, errors


def _kind(cell: Any) -> str:
    kind = _KINDS.get(type(cell), "text")
    if kind == "number" and abs(cell) <= _LARGEST_EXACT and cell == int(cell):  # which no infinite number is, nor NaN
        return "integer"
    return kind


_KINDS: Final[dict[type, str]] = {
    bool: "boolean", int: "number", float: "number", datetime: "datetime", date: "date", time: "time"
}  # fmt: skip
_TYPES: Final = (
    ({"boolean"}, pa.bool_()),
    ({"integer"}, pa.int64()),
    ({"integer", "number"}, pa.float64()),
    ({"date"}, pa.date32()),
    ({"date", "datetime"}, pa.timestamp("us")),
    ({"time"}, pa.time64("us")),
)


def _type(kinds: set[str]) -> pa.DataType:
    return next((type_ for those, type_ in _TYPES if kinds and kinds <= those), pa.string())


def _batch(rows: list[Row], columns: list[str], types: list[pa.DataType]) -> RowBatch:
    arrays = []
    for place, type_ in enumerate(types):
        convert: Callable[[Any], Any] = _CONVERT.get(type_, _text)
        cells = [cells[place] if place < len(cells) else None for _, cells in rows]
        arrays.append(pa.array([None if cell is None else convert(cell) for cell in cells], type_))
    numbers = pa.array([number for number, _ in rows], pa.int64())
    return RowBatch(pa.RecordBatch.from_arrays(arrays, columns), lambda: numbers)


def _instant(cell: Any) -> datetime:
    return cell if isinstance(cell, datetime) else datetime.combine(cell, time())


def _same(cell: Any) -> Any:
    return cell


_CONVERT: Final[dict[pa.DataType, Callable[[Any], Any]]] = {
    pa.bool_(): bool,
    pa.int64(): int,
    pa.float64(): float,
    pa.date32(): _same,
    pa.timestamp("us"): _instant,
    pa.time64("us"): _same,
}


def _text(cell: Any) -> str:
    """Return a cell as text, as in JSON and ISO 8601; whole numbers have no fraction."""
    match cell:
        case str():
            text = cell
        case bool():
            text = "true" if cell else "false"
        case float() if _kind(cell) == "integer":
            text = str(int(cell))
        case timedelta():
            text = iso_duration(cell // timedelta(microseconds=1), 10**6)
        case datetime() | date() | time():
            text = cell.isoformat()
        case _:
            text = str(cell)
    return text
