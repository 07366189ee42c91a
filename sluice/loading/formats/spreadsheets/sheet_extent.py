"""Finds the size of the sheets of a workbook, and their cells with errors, before the workbook is loaded.

The library that loads workbooks makes 17 thousand million cells of a sheet that has a single cell in the last row and
column, and an empty cell of an error such as ``#DIV/0!``. Therefore the XML of xlsx and ods files is searched first.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from html import unescape
from typing import IO, Final
from xml.etree import ElementTree as ET

from sluice.display import visible
from sluice.loading.errors import RefusedFile
from sluice.loading.reading.source import Member

CELL_BYTES: Final = 32
"""Bytes of a cell in memory, empty or not."""
_PIECE_BYTES: Final = 1024 * 1024
_LONGEST_TAG: Final = 64 * 1024
_MOST_ERRORS: Final = 10_000
_MOST_MERGED: Final = 1_000
UNKNOWN: Final = "a formula that was not calculated"
"""Shown for cells of programs that write formulas without values: the library would read empty cells."""

_XLSX_TAG: Final = re.compile(rb'<(?:[\w.-]+:)?(row|c|mergeCell)(?:\sr="([A-Z]*)([0-9]+)")?((?:\s[^>]*)?/?)>')
_XLSX_PLACE: Final = re.compile(rb"""\sr\s*=\s*["']([A-Za-z]*)(\d*)["']""")
_XLSX_ERROR: Final = re.compile(rb"""\st\s*=\s*["']e["']""")
_XLSX_TEXT: Final = re.compile(rb"""\st\s*=\s*["']str["']""")
_XLSX_UNKNOWN: Final = re.compile(
    rb"<(?:[\w.-]+:)?f(?:\s[^>]*)?(?:/>|>[^<]*</[^>]*>)\s*(?:<(?:[\w.-]+:)?v\s*(?:/>|></[^>]*>)\s*)?</"
)
"""A formula, no value, and the end of the cell."""
_XLSX_MERGED: Final = re.compile(rb"""\sref\s*=\s*["']([A-Z]+(\d+):[A-Z]+(\d+))["']""")
_XLSX_VALUE: Final = re.compile(
    rb"\s*(?:<(?:[\w.-]+:)?f(?:\s[^>]*)?(?:/>|>[^<]*</[^>]*>)\s*)?<(?:[\w.-]+:)?v(?:\s[^>]*)?>([^<]*)<"
)
"""What stands in the cell itself, behind its formula."""
_ODS_TAG: Final = re.compile(rb"<(/?)table:(table|table-row|table-cell|covered-table-cell)((?:\s[^>]*)?/?)>")
_ODS_NAME: Final = re.compile(rb"""\stable:name\s*=\s*["']([^"']*)["']""")
_ODS_REPEATED: Final = re.compile(rb"""\stable:number-(?:rows|columns)-repeated\s*=\s*["'](\d{1,12})["']""")
_ODS_VALUE: Final = re.compile(rb"\soffice:value-type\s*=")
_ODS_ERROR: Final = re.compile(rb"""\scalcext:value-type\s*=\s*["']error["']""")
_ODS_FORMULA: Final = re.compile(rb"\stable:formula\s*=")
_ODS_ROWS: Final = re.compile(rb"""\stable:number-rows-spanned\s*=\s*["'](\d{1,7})["']""")
_ODS_TEXT: Final = re.compile(rb"<text:p>([^<]*)<")


@dataclass(slots=True)
class Extent:
    """The size of one sheet, in rows and columns from the first ones, and its unusual cells."""

    height: int = 0
    width: int = 0
    errors: dict[tuple[int, int], str] = field(default_factory=dict)
    """What cells with errors show, by row and column, from 0."""
    merged: dict[str, int] = field(default_factory=dict)
    """The first cells of those merged downwards, with the number of their row from 1."""

    def holds(self, row: int, column: int) -> None:
        """Note that this cell has a value."""
        self.height = max(self.height, row + 1)
        self.width = max(self.width, column + 1)

    def has_error(self, row: int, column: int, shown: re.Match[bytes] | None, member: Member) -> None:
        """Note an error in this cell, shown as the first group of ``shown``. Raises `RefusedFile` for too many."""
        if len(self.errors) >= _MOST_ERRORS:
            raise RefusedFile(f"{member.label} has more than {_MOST_ERRORS} cells with errors: correct its formulas")
        self.errors[row, column] = shown.group(1).decode(errors="replace") if shown else "an error"

    def is_unknown(self, row: int, column: int, member: Member) -> None:
        """Note that the formula of this cell was not calculated by the program that wrote it."""
        self.has_error(row, column, None, member)
        self.errors[row, column] = UNKNOWN

    def is_merged(self, name: str, row: int) -> None:
        """Note that the cell of this name is merged with cells below it."""
        if len(self.merged) < _MOST_MERGED:
            self.merged[name] = row


def xlsx_extents(stream: IO[bytes], member: Member) -> dict[str, Extent]:
    """Return the extents of the sheets by name. Raises `RefusedFile`, and `zipfile`'s errors."""
    with zipfile.ZipFile(stream) as archive:
        _check_sizes(archive, member)
        part = "xl/workbook.xml"
        targets = {
            one.get("Id"): one.get("Target", "") for one in _small(archive, "xl/_rels/workbook.xml.rels", member)
        }
        extents: dict[str, Extent] = {}
        for sheet in _small(archive, part, member).iter():
            # Of two namespaces: files are written by the standard's transitional or by its strict form.
            relation = next((value for key, value in sheet.items() if key.endswith("}id")), "")
            target = targets.get(relation)
            if sheet.tag.rpartition("}")[2] != "sheet" or target is None:
                continue
            path = posixpath.normpath(posixpath.join("/xl", target)).lstrip("/")
            if path in archive.namelist():
                with archive.open(path) as xml:
                    extents[sheet.get("name", "")] = _xlsx_extent(xml, member)
        return extents


def ods_extents(stream: IO[bytes], member: Member) -> dict[str, Extent]:
    """Return the extents of the sheets of an OpenDocument spreadsheet by name, as `xlsx_extents` does."""
    with zipfile.ZipFile(stream) as archive:
        _check_sizes(archive, member)
        with archive.open("content.xml") as xml:
            return _ods_extents(xml, member)


def check_cells(extents: dict[str, Extent], member: Member) -> None:
    """Return if the cells of these sheets together fit the budget's ``block_bytes``. Raises `OverBudget`."""
    cells = sum(extent.height * extent.width for extent in extents.values())
    names = ", ".join(visible(name) for name in extents)
    what = f"{member.label}: from the first to the last cell of the sheet {names} there are {cells} cells"
    member.budget.check("block_bytes", CELL_BYTES * cells, what)


def _check_sizes(archive: zipfile.ZipFile, member: Member) -> None:
    budget = member.budget
    total = sum(entry.file_size for entry in archive.infolist())
    budget.check("unpacked_bytes", total, f"{member.label} unpacks to {total} bytes")
    texts = sum(one.file_size for one in archive.infolist() if one.filename.lower() == "xl/sharedstrings.xml")
    budget.check("block_bytes", texts, f"{member.label} has {texts} bytes of text")


def _small(archive: zipfile.ZipFile, path: str, member: Member) -> ET.Element:
    entry = archive.getinfo(path)
    member.budget.check("line_bytes", entry.file_size, f"{member.label}: its {path} has {entry.file_size} bytes")
    content = archive.read(entry)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise RefusedFile(f"{member.label}: its {path} declares entities, which no Excel file needs")
    return ET.fromstring(content)  # noqa: S314 - there are no entities


def _tags(xml: IO[bytes], pattern: re.Pattern[bytes], member: Member) -> Iterator[re.Match[bytes]]:
    """Yield the tags of the XML, which is read in pieces of bounded size."""
    rest = b""
    first = True
    while piece := xml.read(_PIECE_BYTES):
        if first and (piece.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in piece[:100]):
            raise RefusedFile(f"{member.label} has a sheet in UTF-16: save it again with Excel or LibreOffice")
        first = False
        piece = rest + piece
        # The end of the piece is searched with the next one, so that no tag and no short value is cut.
        end = max(0, len(piece) - _LONGEST_TAG)
        at = 0
        for match in pattern.finditer(piece):
            if match.start() >= end:
                break
            at = match.end()
            yield match
        rest = piece[max(at, end) :]
    yield from pattern.finditer(rest)


def _xlsx_extent(xml: IO[bytes], member: Member) -> Extent:
    extent = Extent()
    row = column = -1
    height = width = 0
    for tag in _tags(xml, _XLSX_TAG, member):
        kind, letters, digits, attributes = tag.groups()
        if digits is None and (place := _XLSX_PLACE.search(attributes)):
            letters, digits = place.groups()
        if kind == b"row":
            row, column = int(digits) - 1 if digits else row + 1, -1
            continue
        if kind == b"mergeCell":
            found = _XLSX_MERGED.search(attributes)
            if found and found[2] != found[3]:
                extent.is_merged(found[1].decode(), int(found[2]))
            continue
        row = int(digits) - 1 if digits else max(row, 0)
        column = _number_of(letters) if letters else column + 1
        if row >= height:
            height = row + 1
        if column >= width:
            width = column + 1
        if b"e" in attributes and _XLSX_ERROR.search(attributes):
            empty = attributes.endswith(b"/")
            extent.has_error(row, column, None if empty else _XLSX_VALUE.match(tag.string, tag.end()), member)
        elif _is_unknown(tag, attributes):
            extent.is_unknown(row, column, member)
    extent.height, extent.width = height, width
    return extent


def _is_unknown(tag: re.Match[bytes], attributes: bytes) -> bool:
    if attributes.endswith(b"/") or not _XLSX_UNKNOWN.match(tag.string, tag.end()):
        return False
    return not _XLSX_TEXT.search(attributes)  # a text without a letter is a value


@lru_cache(maxsize=20_000)
def _number_of(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - 64
    return number - 1


def letters_of(column: int) -> str:
    """Return the letters of a column, counted from 0: ``AB`` for 27."""
    letters = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def _repeated(attributes: bytes) -> int:
    found = _ODS_REPEATED.search(attributes)
    return int(found.group(1)) if found else 1


def _ods_extents(xml: IO[bytes], member: Member) -> dict[str, Extent]:
    extents: dict[str, Extent] = {}
    extent = Extent()
    row = column = 0
    times = 1
    for tag in _tags(xml, _ODS_TAG, member):
        closing, kind, attributes = tag.groups()
        if kind == b"table" and not closing:
            name = _ODS_NAME.search(attributes)
            extent = extents.setdefault(unescape(name.group(1).decode(errors="replace")) if name else "", Extent())
            row = 0
        elif kind == b"table-row" and not closing:
            times, column = _repeated(attributes), 0
            if attributes.endswith(b"/"):
                row += times
        elif kind == b"table-row":
            row += times
        elif not closing:
            across = _repeated(attributes)
            if _ODS_VALUE.search(attributes):
                extent.holds(row + times - 1, column + across - 1)
            _ods_cell(extent, row, column, tag, member)
            column += across
    return extents


def _ods_cell(extent: Extent, row: int, column: int, tag: re.Match[bytes], member: Member) -> None:
    """Note what a cell is besides its value: an error, not calculated, or merged."""
    attributes = tag.group(3)
    if _ODS_ERROR.search(attributes):
        extent.has_error(row, column, _ODS_TEXT.match(tag.string, tag.end()), member)
    elif _ODS_FORMULA.search(attributes) and not _ODS_VALUE.search(attributes):
        extent.holds(row, column)
        extent.is_unknown(row, column, member)
    spanned = _ODS_ROWS.search(attributes)
    if spanned and int(spanned[1]) > 1:
        extent.is_merged(f"{letters_of(column)}{row + 1}", row + 1)
