"""Reads delimited text: with pyarrow where its quotation is regular, with Python's `csv` where it is not.

Both read alike what both can read. pyarrow is several times as fast, but it ignores quotation marks that are missing or
misplaced, and loses a byte if its own blocks end between CR and LF: therefore it gets whole records.
"""

from __future__ import annotations

import codecs
import csv
import io
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as arrow_csv

from sluice.loading.contracts.contract import Contract
from sluice.loading.errors import AmbiguousFile, RefusedFile
from sluice.loading.formats.delimited.blocks import Blocks, count_lines
from sluice.loading.formats.delimited.dialect import SAMPLE_BYTES, DelimitedDialect, find_dialect
from sluice.loading.formats.text.encodings import TextEncoding, encoding_of, not_utf8, open_utf8
from sluice.loading.formats.text.lines import empty_is_null
from sluice.loading.reading.batch import BadRow, Reading, RowBatch
from sluice.loading.reading.source import Member
from sluice.loading.showing import content

_MARK: Final = re.compile(rb"(?:\A|[\r\n])\xef\xbb\xbf")
_QUOTED: Final = re.compile(rb'"[^"]*"')


def read_delimited(member: Member, contract: Contract | None) -> Reading:
    """Return the reading of a text of records with a delimiter; the first record has the names of the columns.

    Raises `RefusedFile`, and `AmbiguousFile` if what the text shows has two readings.
    """
    encoding = encoding_of(member, contract.encoding if contract else None)
    with open_utf8(member, encoding) as stream:
        beginning = stream.read(SAMPLE_BYTES)
        whole = not stream.peek(1)
    ending = posixpath.splitext(member.name)[1].lower()
    text = _decoded(member, beginning, encoding, whole=whole)
    dialect = find_dialect(text, whole=whole, label=member.label, ending=ending, contract=contract)
    evidence = {
        "encoding": f"{encoding.name}: {encoding.why}",
        **dialect.evidence,
        "quoting": _quoting(dialect),
        "line ends": ", ".join(_line_ends(beginning)) or "none",
    }
    found = DelimitedText(member, encoding, dialect, empty_is_null=empty_is_null(contract))
    return Reading(
        dialect.columns,
        typed=False,
        batches=found.batches,
        dialect={"delimiter": dialect.delimiter} if dialect.delimiter is not None else {},
        notes=found.notes,
        evidence=evidence,
    )


@dataclass(slots=True)
class DelimitedText:
    """The rows of a delimited text."""

    member: Member
    encoding: TextEncoding
    dialect: DelimitedDialect
    empty_is_null: bool
    notes: list[str] = field(default_factory=list)
    _is_regular: bool = False
    """Whether all blocks had regular quotation in an earlier reading, so that it need not be checked again."""

    @property
    def width(self) -> int:
        return len(self.dialect.columns)

    def batches(self) -> Iterator[RowBatch]:
        """Yield the rows; records with another number of fields than the header are in `RowBatch.bad`."""
        regular = _regular_quotation(self.dialect.delimiter) if self.dialect.plain and self.dialect.delimiter else None
        with open_utf8(self.member, self.encoding) as stream:
            quote = self.dialect.quote_char.encode()
            blocks = Blocks(stream, self.member.budget, self.member.label, quote=quote)
            blocks.skip_lines(self.dialect.skipped_lines)
            line_ends: set[str] = set()
            all_regular = True
            while block := blocks.next():
                self._check(block, blocks.line, line_ends)
                if self.width == 1 and blocks.at_end:
                    block = self._without_last_lines(block)
                found = None
                if regular is not None and (self._is_regular or b'"' not in block or regular.fullmatch(block)):
                    found = self._by_arrow(block, blocks.line)
                all_regular &= found is not None
                if found is None:
                    yield from self._by_csv(block, blocks)
                    continue
                yield found
                blocks.line += count_lines(block)
        self._is_regular = all_regular

    def _by_arrow(self, block: bytes, line: int) -> RowBatch | None:
        """Return the rows of a block of regular records; None if one of them has another number of fields."""
        uneven = False

        def note(_row: Any) -> str:
            nonlocal uneven
            uneven = True
            return "skip"

        names = [f"c{number}" for number in range(self.width)]
        empty = self.empty_is_null
        if not block or (not block.strip(b"\r\n") and self.width > 1):
            return self._batch([pa.nulls(0, pa.string())] * self.width)
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(block),
                read_options=arrow_csv.ReadOptions(column_names=names, block_size=len(block) + 1, use_threads=False),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self.dialect.delimiter,
                    newlines_in_values=True,
                    ignore_empty_lines=self.width > 1,
                    invalid_row_handler=note,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    strings_can_be_null=empty,
                    quoted_strings_can_be_null=empty,
                    null_values=[""] if empty else [],
                ),
            )
        except pa.ArrowInvalid:
            try:
                block.decode()
            except UnicodeDecodeError:
                not_utf8(self.member, block, line, self.encoding)
            raise
        if uneven:
            return None
        arrays = [column.combine_chunks() for column in table.columns]
        return self._batch(arrays, partial(self._lines, block, line))

    def _by_csv(self, block: bytes, blocks: Blocks) -> Iterator[RowBatch]:
        """Yield the records that begin in the block."""
        feed = _Feed(block, blocks, self.dialect.comment_char, self._decoded)
        reader = self.dialect.reader(feed)
        places: list[int] = []
        rows: list[list[str]] = []
        bad: list[BadRow] = []
        while feed.taken < len(block):
            feed.begin_record()
            try:
                record = next(reader, None)
            except csv.Error as error:
                where = f"{self.member.label}, line {feed.record_line}"
                raise RefusedFile(f"{where}: {error}; {_advice(str(error), self.dialect)}") from error
            if record is None:
                break
            if not record and self.width == 1:
                record = [""]
            if len(record) == self.width:
                rows.append(record)
                places.append(feed.record_line)
            elif record:
                bad.append(BadRow(feed.record_line, None, None, self._uneven(record), tuple(record)))
        blocks.line = feed.line
        blocks.give_back(feed.unread())
        columns = zip(*rows, strict=True) if rows else [()] * self.width
        arrays = [
            pa.array([value or None for value in column] if self.empty_is_null else column, pa.string())
            for column in columns
        ]
        yield self._batch(arrays, lambda: pa.array(places, pa.int64()), tuple(bad))

    def _uneven(self, record: list[str]) -> str:
        count, names = len(record), self.dialect.columns
        said = f"{count} field{'' if count == 1 else 's'} where the header names {len(names)}"
        if count < len(names):
            return f"{said}: column {content(names[count], 40)!r} has none"
        if not any(record[len(names) :]):
            return f"{said}: the delimiter at the end is one too many"
        if any(value.lstrip(" ").startswith(self.dialect.quote_char) for value in record):
            return (
                f"{said}: a quotation mark must follow the delimiter at once, unless a contract says "
                "`dialect: {skipInitialSpace: true}`"
            )
        return f"{said}: a field with the delimiter in it must be quoted"

    def _batch(self, arrays: list[pa.Array], lines: Any = None, bad: tuple[BadRow, ...] = ()) -> RowBatch:
        return RowBatch(pa.RecordBatch.from_arrays(arrays, names=self.dialect.columns), lines, bad)

    def _lines(self, block: bytes, first_line: int) -> pa.Int64Array:
        reader = self.dialect.reader(io.StringIO(block.decode(), newline=""))
        places, line = [], first_line
        for record in reader:
            if record or self.width == 1:
                places.append(line)
            line = first_line + reader.line_num
        return pa.array(places, pa.int64())

    def _decoded(self, text: bytes, line: int) -> str:
        try:
            return text.decode()
        except UnicodeDecodeError:
            not_utf8(self.member, text, line, self.encoding)

    def _check(self, block: bytes, line: int, line_ends: set[str]) -> None:
        """Raise for what only shows in the middle of a text; ``line_ends`` are those found so far."""
        mark = _MARK.search(block) if codecs.BOM_UTF8[:1] in block else None  # a single byte is found much faster
        if mark is not None:
            where = line + count_lines(block[: mark.start() + 1])
            raise RefusedFile(
                f"{self.member.label}, line {where}: it begins with a byte order mark; two files seem to have been put "
                "one behind the other: send them one by one"
            )
        if self.width == 1 and b"\r" in block:
            line_ends.update(_line_ends(_QUOTED.sub(b"", block)))
            if "CR" in line_ends and len(line_ends) > 1:
                raise AmbiguousFile(
                    f"{self.member.label}: some lines end with LF, and there are single CR besides, near line {line}: "
                    "they can end rows or be part of a value; have it written with one kind of line end, and with "
                    "values that hold one in quotation marks"
                )

    def _without_last_lines(self, block: bytes) -> bytes:
        """Return the block without empty lines at the very end; elsewhere they are rows of a text of one column."""
        rows = block.rstrip(b"\r\n")
        ends = block[len(rows) :]
        count = count_lines(ends) - 1
        if count <= 0:
            return block
        note = f"{self.member.label}: empty lines at the end, which are no rows: {count}"
        self.notes[:] = [note]
        first = 2 if ends.startswith(b"\r\n") else 1
        return rows + ends[:first] if rows else b""


class _Feed:
    """The lines of a block and of what follows it, for a `csv.reader` that takes one record at a time."""

    def __init__(
        self, block: bytes, blocks: Blocks, comment_char: str | None, decode: Callable[[bytes, int], str]
    ) -> None:
        self._lines = block.splitlines(keepends=True)
        self._next = 0
        self._blocks = blocks
        self._ended = False
        self._comment_char = comment_char
        self._decode = decode
        self._record_bytes = 0
        self.taken = 0
        """Number of bytes taken."""
        self.line = blocks.line
        """Number of the next line."""
        self.record_line = blocks.line
        """Number of the line at which the last record began."""

    def begin_record(self) -> None:
        """Note that the next line begins a record."""
        self._record_bytes = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            while self._next >= len(self._lines) - 1 and not self._ended:
                more = self._blocks.more()
                self._ended = not more
                self._lines = (b"".join(self._lines[self._next :]) + more).splitlines(keepends=True)
                self._next = 0
                if len(self._lines) == 1:
                    self._blocks.check_length(len(self._lines[0]), self.line)
            if self._next == len(self._lines):
                raise StopIteration
            raw = self._lines[self._next]
            self._next += 1
            self.taken += len(raw)
            line = self._decode(raw, self.line)
            self.line += 1
            if self._comment_char and not self._record_bytes and line.startswith(self._comment_char):
                continue
            if not self._record_bytes:
                self.record_line = self.line - 1
            self._record_bytes += len(raw)
            self._blocks.check_length(self._record_bytes, self.record_line)
            return line

    def unread(self) -> bytes:
        """Return the text that was not taken."""
        return b"".join(self._lines[self._next :])


def _regular_quotation(delimiter: str) -> re.Pattern[bytes]:
    """Return a pattern for texts whose quotation marks all open or close a whole field, or are doubled inside one."""
    ends = b"[" + re.escape(delimiter.encode()) + b"\r\n]"
    quoted = rb'"[^"]*+"(?:"[^"]*+")*+(?=' + ends + rb"|\Z)"
    return re.compile(b"(?:" + quoted + rb')?+[^"]*+(?:(?<=' + ends + b")" + quoted + rb'[^"]*+)*+')


def _decoded(member: Member, beginning: bytes, encoding: TextEncoding, *, whole: bool) -> str:
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(beginning, final=whole)
    except UnicodeDecodeError:
        not_utf8(member, beginning, 1, encoding)


def _line_ends(text: bytes) -> list[str]:
    both = text.count(b"\r\n")
    counts = {"CRLF": both, "LF": text.count(b"\n") - both, "CR": text.count(b"\r") - both}
    return [name for name, count in counts.items() if count]


def _quoting(dialect: DelimitedDialect) -> str:
    inside = f"{dialect.escape_char!r} before it" if dialect.escape_char else "doubled inside"
    return f"{dialect.quote_char!r}, {inside if dialect.double_quote or dialect.escape_char else 'never inside'}"


def _advice(said: str, dialect: DelimitedDialect) -> str:
    if "expected after" not in said:
        return "is a quotation mark missing?"
    return (
        (
            "is a quotation mark missing, or not doubled inside a value? A contract says what else it may be: "
            '`dialect: {escapeChar: "\\\\"}` or `dialect: {skipInitialSpace: true}`'
        )
        if dialect.escape_char is None
        else "is a quotation mark missing?"
    )
