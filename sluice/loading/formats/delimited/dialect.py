"""The dialect of a delimited text: as the contract says, and otherwise as its beginning shows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sluice.loading.contracts.contract import Contract
from sluice.loading.errors import AmbiguousFile, RefusedFile
from sluice.loading.formats.delimited.delimiters import Sample, check_named, find_delimiter, spelled
from sluice.loading.formats.headers import check_header
from sluice.loading.showing import content

SAMPLE_BYTES: Final = 256 * 1024
"""Bytes at the beginning of a text that are examined; the result is then checked against every line."""

_SEPARATOR_LINE: Final = re.compile(r'"?sep=([^\r\n"])"?[\t,;|]*(?:\r\n|\r|\n|$)', re.IGNORECASE)
_MOST_RECORDS: Final = 1000
_NO_DELIMITER: Final = "\0"
"""A character that no value has: databases and the loading refuse it."""


@dataclass(frozen=True, slots=True)
class DelimitedDialect:
    """How a delimited text is read."""

    delimiter: str | None
    """The delimiter; None if each line is one value."""
    columns: list[str]
    """The names in the header, or those of the contract if there is no header."""
    skipped_lines: int
    """Number of lines before the first row, the header's included."""
    quote_char: str = '"'
    double_quote: bool = True
    escape_char: str | None = None
    skip_initial_space: bool = False
    comment_char: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether it only has fields in quotation marks, which are doubled inside a value."""
        return (
            self.delimiter is not None
            and self.delimiter.isascii()
            and self.quote_char == '"'
            and self.double_quote
            and not (self.escape_char or self.skip_initial_space or self.comment_char)
        )

    def reader(self, lines: Iterator[str]) -> Any:
        """Return a `csv.reader` of the text's lines, which must have their ends."""
        return csv.reader(
            lines,
            delimiter=self.delimiter or _NO_DELIMITER,
            quotechar=self.quote_char,
            doublequote=self.double_quote,
            escapechar=self.escape_char,
            skipinitialspace=self.skip_initial_space,
            strict=True,
        )


def find_dialect(text: str, *, whole: bool, label: str, ending: str, contract: Contract | None) -> DelimitedDialect:
    """Return the dialect of a text that begins with ``text``; ``whole`` says that this is all of it.

    ``label`` is the file's name in messages, ``ending`` that of its name. Raises `RefusedFile` for a text that lacks
    what the dialect needs, and `AmbiguousFile` if two readings fit, with both and with the line of the contract that
    decides.
    """
    contract = contract or Contract()
    said = contract.dialect
    skipped, named = _separator_line(text, label, contract)
    if said.header_rows:
        skipped = said.header_rows[0] - 1
    lines = list(io.StringIO(text, newline=""))
    while skipped < len(lines) and not lines[skipped].strip("\r\n"):
        skipped += 1
    rest = "".join(lines[skipped:])
    if not rest:
        raise RefusedFile(f"{label} has no line with the names of the columns")
    if not whole and len(lines) - skipped < 2:  # noqa: PLR2004 - the last one may go on
        raise RefusedFile(
            f"{label}: line {skipped + 1} has more than {len(rest)} characters, so that it is no line with the names "
            "of columns: is it text, and are its lines ended?"
        )
    sample = Sample(rest, whole, label, skipped + 1, said.quote_char or '"', said.comment_char)
    delimiter, why = named or _delimiter(sample, ending, contract)
    if delimiter is not None and (named or said.delimiter) and len(contract.fields) != 1:
        check_named(sample, delimiter, why)
    dialect = DelimitedDialect(
        delimiter,
        [],
        skipped,
        quote_char=said.quote_char or '"',
        double_quote=said.double_quote is not False,
        escape_char=said.escape_char,
        skip_initial_space=bool(said.skip_initial_space),
        comment_char=said.comment_char,
        evidence={"delimiter": why},
    )
    return _with_columns(dialect, sample, contract)


def _separator_line(text: str, label: str, contract: Contract) -> tuple[int, tuple[str, str] | None]:
    """Return the lines to skip, and the delimiter in a first line ``sep=;``, as spreadsheets write and read it."""
    found = _SEPARATOR_LINE.match(text)
    if found is None:
        return 0, None
    said = contract.dialect.delimiter
    if said is not None and said != found[1]:
        raise RefusedFile(
            f"{label}: line 1 says {content(found[0].strip())!r}, and the contract says {spelled(said)}: leave one of "
            "the two out"
        )
    return 1, (found[1], f"{spelled(found[1])}: line 1 says so")


def _delimiter(sample: Sample, ending: str, contract: Contract) -> tuple[str | None, str]:
    if contract.dialect.delimiter is not None:
        return contract.dialect.delimiter, f"{spelled(contract.dialect.delimiter)}: named in the contract"
    if len(contract.fields) == 1:
        return None, "none: the contract has one field"
    return find_delimiter(sample, ending)


def _with_columns(dialect: DelimitedDialect, sample: Sample, contract: Contract) -> DelimitedDialect:
    fields = contract.fields
    (first, *rows), lines_read, unread = _first_records(dialect, sample)
    line = sample.first_line
    if contract.dialect.header is False:
        if fields and len(fields) != len(first):
            raise RefusedFile(
                f"{sample.label}, line {line}: it has {len(first)} fields, and the contract names {len(fields)}"
            )
        names = [one.name for one in fields] or [f"column_{number}" for number in range(1, len(first) + 1)]
        why = "none: the contract says `header: false`"
        return replace(dialect, columns=names, evidence=dialect.evidence | {"header": why})
    told = contract.dialect.header or contract.dialect.header_rows is not None
    if told or {one.name for one in fields} == {name.strip() for name in first}:
        why = f"line {line}: the contract says so"
    elif unread:  # the file is refused for it when its rows are read, or its first row is very long
        why = f"line {line}: no row below it ends within what is looked at"
    else:
        why = check_header(first, rows, label=sample.label, line=line)
    if contract.dialect.quote_char is None:
        _check_quotes(first, sample.label, line)
    return replace(
        dialect,
        columns=first,
        skipped_lines=_physical(sample, dialect, lines_read),
        evidence=dialect.evidence | {"header": why},
    )


def _first_records(dialect: DelimitedDialect, sample: Sample) -> tuple[list[list[str]], int, bool]:
    """Return the first non-empty records, at least one; the number of their lines; whether more could not be read."""
    records: list[list[str]] = []
    lines_read = 0
    unread = not sample.whole
    reader = dialect.reader(sample.lines())
    try:
        for record in reader:
            if record:
                records.append(record)
                lines_read = lines_read or reader.line_num
            if len(records) > _MOST_RECORDS:
                break
        else:
            if not sample.whole:
                records = records[:1] + records[1:-1]  # the last one may go on
    except csv.Error as error:
        if not records:
            where = f"{sample.label}, line {sample.first_line}"
            raise RefusedFile(f"{where}: {error}; is a quotation mark missing?") from error
        unread = True
    if not records:
        raise RefusedFile(f"{sample.label} has no line with the names of the columns")
    return records, lines_read, unread and len(records) == 1


def _physical(sample: Sample, dialect: DelimitedDialect, lines_read: int) -> int:
    """Return the number of lines before the first row, comments before the header included."""
    count = dialect.skipped_lines
    for line in io.StringIO(sample.text, newline=""):
        count += 1
        if not (sample.comment_char and line.startswith(sample.comment_char)):
            lines_read -= 1
        if not lines_read:
            break
    return count


def _check_quotes(header: list[str], label: str, line: int) -> None:
    if all(len(name) > 1 and name[0] == name[-1] == "'" for name in header):
        raise AmbiguousFile(
            f"{label}: every name in line {line} stands in single quotes, such as {content(header[0], 40)}: settle in "
            'a contract whether they quote, `dialect: {quoteChar: "\'"}`, or belong to the values, '
            "`dialect: {quoteChar: '\"'}`"
        )
