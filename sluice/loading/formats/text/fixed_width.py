"""Reads fixed-width text by a contract: each field has its place in the line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sluice.loading.contracts.contract import Contract
from sluice.loading.errors import RefusedFile
from sluice.loading.formats.text.encodings import TextEncoding, encoding_of
from sluice.loading.formats.text.lines import empty_is_null, open_text
from sluice.loading.reading.batch import Reading, RowBatch
from sluice.loading.reading.source import Member
from sluice.loading.showing import content

_PIECE: Final = 1024 * 1024


class Place(NamedTuple):
    """The place of a field in a line, in characters from 0; ``end`` is None for a last field without a width."""

    name: str
    start: int
    end: int | None


def read_fixed_width(member: Member, contract: Contract | None) -> Reading:
    """Return columns of text without the spaces around their values; a line that ends early lacks its last fields.

    Blank lines are skipped. Lines of names are those of the contract's ``headerRows`` (the first line with ``header:
    true``), or a first line with exactly the names of the fields in their places.
    """
    places = _places(member, contract)
    encoding = encoding_of(member, contract.encoding if contract else None)
    null = empty_is_null(contract)
    skipped = _header_lines(member, contract, places, encoding)

    def batches() -> Iterator[RowBatch]:
        with open_text(member, encoding) as text:
            for first, lines in _blocks(text, member):
                numbers = [first + place for place, line in enumerate(lines) if line.strip()]
                kept = [(number, lines[number - first]) for number in numbers if number not in skipped]
                if kept:
                    yield _batch(kept, places, member, empty_is_null=null)

    evidence = {"encoding": f"{encoding.name}: {encoding.why}", "row of names": sorted(skipped) or None}
    return Reading([place.name for place in places], typed=False, batches=batches, unit="line", evidence=evidence)


def _places(member: Member, contract: Contract | None) -> list[Place]:
    fields = contract.fields if contract is not None else ()
    example = "{name: id, width: 8}"
    if not fields:
        raise RefusedFile(
            f"{member.label}: the contract of a file with fixed widths names its fields, for example `schema: "
            f"{{fields: [{example}]}}`"
        )
    places: list[Place] = []
    end: int | None = 0
    for field in fields:
        if end is None:
            raise RefusedFile(f"{member.label}: the field {places[-1].name!r} needs a `width`, since another follows")
        start = field.start - 1 if field.start is not None else end
        if start < end:
            raise RefusedFile(
                f"{member.label}: the field {field.name!r} starts within {places[-1].name!r}, at {start + 1}"
            )
        end = None if field.width is None else start + field.width
        places.append(Place(field.name, start, end))
    return places


def _header_lines(
    member: Member, contract: Contract | None, places: list[Place], encoding: TextEncoding
) -> frozenset[int]:
    dialect = contract.dialect if contract is not None else None
    if dialect is not None and dialect.header is False:
        return frozenset()
    if dialect is not None and dialect.header_rows is not None:
        return frozenset(dialect.header_rows)
    if dialect is not None and dialect.header:
        return frozenset({1})
    with open_text(member, encoding) as text:
        first = text.readline(member.budget.line_bytes)
    names = [first[place.start : place.end].strip().casefold() for place in places]
    return frozenset({1}) if names == [place.name.casefold() for place in places] else frozenset()


def _blocks(text: io.TextIOWrapper, member: Member) -> Iterator[tuple[int, list[str]]]:
    """Yield whole lines, about a megabyte at a time, with the number of the first."""
    number, rest = 1, ""
    while piece := text.read(_PIECE):
        *lines, rest = (rest + piece).split("\n")
        if len(rest) > member.budget.line_bytes:
            member.budget.exceeded("line_bytes", f"{member.label}, line {number + len(lines)} is too long")
        if lines:
            yield number, lines
        number += len(lines)
    if rest:
        yield number, [rest]


def _batch(lines: list[tuple[int, str]], places: list[Place], member: Member, *, empty_is_null: bool) -> RowBatch:
    column = pa.array([line for _, line in lines], pa.string())
    before = pc.utf8_slice_codeunits(column, 0, places[-1].start)
    if pc.any(tabs := pc.match_substring(before, "\t")).as_py():
        number, _ = lines[pc.index(tabs, True).as_py()]
        raise RefusedFile(
            f"{member.label}, line {number}: a tab stands before the last field, which is one position here and more "
            "on a screen: have it written with spaces"
        )
    end = places[-1].end
    if end is not None:
        behind = pc.not_equal(pc.utf8_trim_whitespace(pc.utf8_slice_codeunits(column, end)), "")
        if pc.any(behind).as_py():
            number, line = lines[pc.index(behind, True).as_py()]
            raise RefusedFile(
                f"{member.label}, line {number}: {content(line[end : end + 40].strip())!r} stands behind position "
                f"{end}, where the last field of the contract ends"
            )
    lengths = pc.utf8_length(column)
    arrays = []
    for place in places:
        values = pc.utf8_trim(pc.utf8_slice_codeunits(column, place.start, place.end), " \t")
        there = pc.not_equal(values, "") if empty_is_null else pc.greater(lengths, place.start)
        arrays.append(pc.if_else(there, values, pa.scalar(None, pa.string())))
    numbers = pa.array([number for number, _ in lines], pa.int64())
    return RowBatch(pa.RecordBatch.from_arrays(arrays, [place.name for place in places]), lambda: numbers)
