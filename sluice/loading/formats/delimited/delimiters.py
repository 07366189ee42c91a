"""Finds the delimiter of a text from its beginning; a text that two of them fit is ambiguous."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sluice.display import visible
from sluice.loading.errors import AmbiguousFile
from sluice.loading.showing import content

CANDIDATES: Final = (",", ";", "\t", "|")
UNUSUAL: Final = (*":^~!#$&*=/\\§¦", "\x01", "\x02", "\x1c", "\x1e", "\x1f")
"""Characters that are never taken as the delimiter; but a text that one of them would divide is not taken as one
column.
"""
ENDINGS: Final = {".tsv": "\t", ".tab": "\t", ".psv": "|"}
"""The delimiter by the ending of a file's name, used if the text has it, too."""

_FEW_ROWS: Final = 20
"""Number of rows below which a delimiter remains possible although many rows do not fit it."""
_MOST_RECORDS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Sample:
    """The beginning of a text, from its line of names on."""

    text: str
    whole: bool
    """Whether this is the whole text; otherwise its last line may be cut and is ignored."""
    label: str
    """The name of the file in messages."""
    first_line: int = 1
    quote_char: str = '"'
    comment_char: str | None = None

    def lines(self) -> Iterator[str]:
        """Yield its lines with their ends (CR, LF or both), without comments."""
        lines = io.StringIO(self.text, newline="")
        return (line for line in lines if not (self.comment_char and line.startswith(self.comment_char)))

    def records(self, delimiter: str) -> TrialReading:
        """Return the sample as divided by a delimiter."""
        reader = csv.reader(self.lines(), delimiter=delimiter, quotechar=self.quote_char, strict=True)
        records: list[list[str]] = []
        places: list[int] = []
        broken = False
        try:
            line = 1
            for record in reader:
                if record:
                    records.append(record)
                    places.append(self.first_line + line - 1)
                line = reader.line_num + 1
                if len(records) > _MOST_RECORDS:
                    break
            else:
                if not self.whole:
                    del records[-1:]
        except csv.Error as error:
            broken = self.whole or "unexpected end of data" not in str(error)
        return TrialReading(delimiter, records, places, broken)


@dataclass(frozen=True, slots=True)
class TrialReading:
    """A sample as divided by one delimiter."""

    delimiter: str
    records: list[list[str]]
    """Its records without empty lines; the first has the names."""
    places: list[int]
    """The numbers of the lines at which they begin."""
    broken: bool
    """Whether reading ended early, because the quotation marks do not fit this delimiter."""

    @property
    def width(self) -> int:
        return len(self.records[0]) if self.records else 0

    def share(self, *, over: bool = False) -> float:
        """Return the share of rows with as many fields as the header, or with more (``over``)."""
        if self.broken:
            return 0.0
        rows = self.records[1:]
        if not rows:
            return 0.0 if over else 1.0
        return sum(len(row) > self.width if over else len(row) == self.width for row in rows) / len(rows)

    @property
    def perfect(self) -> bool:
        return self.share() == 1

    def misfit(self) -> tuple[int, int] | None:
        """Return the line and the number of fields of the first row that does not fit; None if all fit."""
        found = zip(self.places[1:], self.records[1:], strict=False)
        return next(((line, len(row)) for line, row in found if len(row) != self.width), None)

    def shown(self) -> str:
        names = ", ".join(repr(content(name, 30)) for name in self.records[0][:5])
        more = ", …" if self.width > 5 else ""  # noqa: PLR2004 - as many as are shown
        said = f"with {spelled(self.delimiter)} it has {self.width} columns: {names}{more}"
        misfit = self.misfit()
        return said + (f" (but line {misfit[0]} has {misfit[1]} fields)" if misfit else "")


def find_delimiter(sample: Sample, ending: str) -> tuple[str, str]:
    """Return the delimiter and the reason for it; a text of one column has a comma, which it never contains.

    ``ending`` is that of the file's name. Raises `AmbiguousFile` if several delimiters fit.
    """
    readings = [reading for one in CANDIDATES if (reading := sample.records(one)).width > 1]
    by_name = ENDINGS.get(ending)
    named = next((reading for reading in readings if reading.delimiter == by_name), None)
    if named is not None and named.perfect:
        return named.delimiter, f"{spelled(named.delimiter)}: {ending} files have it, and every row looked at fits"
    if not readings:
        _check_single_column(sample)
        return ",", "none: the first line names one column"
    if by_name is not None and named is None:
        told = "; ".join(reading.shown() for reading in readings)
        raise AmbiguousFile(
            f"{sample.label}: the name says {spelled(by_name)} ({ending}), and line {sample.first_line} has none: "
            f"{told}. Name the file after what it is, or settle it in a contract: {_lines_of(readings)}"
        )
    best = max(readings, key=lambda reading: (reading.share(), reading.width))
    rivals = [reading for reading in readings if reading is not best and _is_rival(reading, best)]
    if rivals:
        told = "; ".join(reading.shown() for reading in (best, *rivals))
        raise AmbiguousFile(
            f"{sample.label} can be read in {len(rivals) + 1} ways: {told}. Settle it in a contract: "
            f"{_lines_of([best, *rivals])}"
        )
    others = ", ".join(f"{spelled(one.delimiter)} {one.share():.0%}" for one in readings if one is not best)
    fit = f"{best.share():.0%} of the rows looked at have {best.width} fields as the header has"
    return best.delimiter, f"{spelled(best.delimiter)}: {fit}" + (f" (with {others})" if others else "")


def check_named(sample: Sample, delimiter: str, why: str) -> None:
    """Raise `AmbiguousFile` if the header lacks the named delimiter and the text reads well with another."""
    if sample.records(delimiter).width > 1:
        return
    others = [one for one in map(sample.records, CANDIDATES) if one.width > 1 and len(one.records) > 1 and one.perfect]
    if others:
        told = "; ".join(reading.shown() for reading in others)
        raise AmbiguousFile(
            f"{sample.label}: {why}, and line {sample.first_line} has none: {told}. If that is meant, say so: "
            f"{_lines_of(others)}; if there is one column, write a contract with that one field in its schema"
        )


def _is_rival(other: TrialReading, best: TrialReading) -> bool:
    """Return whether the text could have been meant to be divided like this, with some rows that do not fit."""
    few = len(best.records) <= _FEW_ROWS
    if other.share() >= (0.5 if few else 0.9):
        return True
    return other.width >= best.width and other.share() + other.share(over=True) >= (0.2 if few else 0.5)


def _check_single_column(sample: Sample) -> None:
    """Raise `AmbiguousFile` for a text that may have several columns although its header has no usual delimiter."""
    for one in CANDIDATES:
        reading = sample.records(one)
        misfit = reading.misfit()
        if misfit is not None:
            line, count = misfit
            header = _later_header(reading)
            raise AmbiguousFile(
                f"{sample.label}: line {reading.places[0]} names one column, "
                f"{content(reading.records[0][0], 40)!r}, and line {line} has {count} fields with {spelled(one)}. "
                + (
                    f"If line {header} has the names, write `dialect: {{headerRows: [{header}]}}` in a contract; if "
                    if header
                    else "If "
                )
                + "there is one column, write a contract with that one field in its schema"
            )
    whole_lines = sample.records(",")
    inner = Sample("\n".join(row[0] for row in whole_lines.records), True, sample.label)
    for one in CANDIDATES:
        reading = inner.records(one)
        if reading.width > 1 and len(reading.records) > 1 and reading.perfect:
            raise AmbiguousFile(
                f"{sample.label}: every line is quoted as a whole, so it has one column, "
                f"{content(whole_lines.records[0][0], 40)!r}; without those quotation marks, {reading.shown()}. Have "
                "it written without them; if there is one column, write a contract with that one field in its schema"
            )
    for one in UNUSUAL:
        reading = sample.records(one)
        if reading.width > 1 and len(reading.records) > 1 and reading.perfect:
            raise AmbiguousFile(
                f"{sample.label} can be read in 2 ways: it has one column, "
                f"{content(reading.delimiter.join(reading.records[0]), 40)!r}; {reading.shown()}. Settle it in a "
                f"contract: {_line_of(one)}, or a schema with one field"
            )
    _check_aligned(sample)


def _check_aligned(sample: Sample) -> None:
    rows = [line.rstrip("\r\n") for line in sample.lines()]
    if any(row.startswith(sample.quote_char) for row in rows):
        return
    rows = [row for row in (rows if sample.whole else rows[:-1]) if row]
    widths = {len(row.split()) for row in rows}
    if len(rows) > 1 and len(widths) == 1 and widths.isdisjoint({0, 1}):
        raise AmbiguousFile(
            f"{sample.label} can be read in 2 ways: it has one column, {content(rows[0], 40)!r}; or it has "
            f"{widths.pop()} columns with spaces between them. Settle it in a contract: a schema with one field, or "
            '`dialect: {delimiter: " "}`, or the `width` of each field where columns are aligned'
        )


def _later_header(reading: TrialReading) -> int | None:
    """Return the line from which every row has the same number of fields, at least two; None if there is none."""
    widths = [len(row) for row in reading.records]
    last = widths[-1]
    start = len(widths)
    while start and widths[start - 1] == last:
        start -= 1
    return reading.places[start] if last > 1 and len(widths) - start > 1 else None


def spelled(delimiter: str) -> str:
    """Return the delimiter in words or quotes, for messages."""
    return {"\t": "tab", " ": "space"}.get(delimiter) or f"'{visible(delimiter)}'"


def _line_of(delimiter: str) -> str:
    written = re.sub(r"[\x00-\x1f\\\"]", lambda found: f"\\x{ord(found[0]):02x}", delimiter).replace("\\x09", "\\t")
    return f'`dialect: {{delimiter: "{written}"}}`'


def _lines_of(readings: list[TrialReading]) -> str:
    return " or ".join(_line_of(reading.delimiter) for reading in readings)
