"""Reads JSON documents and JSON Lines: each object is a row, its keys are the columns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from typing import Any, Final, TypeAlias

import pyarrow as pa

from sluice.budgets import BoundedLines
from sluice.loading.contracts.contract import Contract
from sluice.loading.errors import RefusedFile
from sluice.loading.formats.columnar.nested import json_text
from sluice.loading.formats.text.encodings import encoding_of
from sluice.loading.formats.text.json_scanner import DECODER, Scanner
from sluice.loading.formats.text.lines import open_text
from sluice.loading.reading.batch import Reading, RowBatch
from sluice.loading.reading.source import Member
from sluice.loading.showing import content
from sluice.tables import table_key

_BATCH_ROWS: Final = 10_000
_BATCH_CELLS: Final = 200_000
_SHORT: Final = 16
"""Characters of a number that a 64-bit float certainly keeps: 15 digits and a point."""

Rows: TypeAlias = Iterator[tuple[int, dict[str, Any]]]


def read_json(member: Member, contract: Contract | None) -> Reading:
    """Return the reading of a document: an array of objects, or objects one after another, such as a single one.

    If the contract names a ``property``, the rows are the array under that key of the document.
    """
    below = contract.dialect.property if contract is not None else None
    encoding = encoding_of(member, contract.encoding if contract else None)

    rows_are_told = below is not None

    def values() -> Iterator[tuple[int, Any]]:
        nonlocal rows_are_told
        with open_text(member, encoding) as text:
            scanner = Scanner(text, member)
            if below is not None:
                scanner.enter(below)
                yield from scanner.elements()
                scanner.leave(below)
            elif scanner.peek() == "[":
                rows_are_told = True
                yield from scanner.elements()
                scanner.end()
            else:
                while scanner.peek():
                    yield scanner.value()

    evidence = {"encoding": f"{encoding.name}: {encoding.why}"} | ({"property": below} if below else {})
    reading = _reading(member, contract, values, evidence)
    return replace(reading, notes=[] if rows_are_told else _notes(list(islice(values(), 2))))


def _notes(first: list[tuple[int, Any]]) -> list[str]:
    """Return a note if a document is one object whose rows are probably in one of its arrays."""
    if len(first) != 1 or not isinstance(first[0][1], dict):
        return []
    return [
        f"the document is one row; its {content(key[:100])!r} holds {len(value)} objects, which a contract with "
        f"`dialect: {{property: {content(key[:100])}}}` takes for the rows"
        for key, value in first[0][1].items()
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value)
    ]


def read_json_lines(member: Member, contract: Contract | None) -> Reading:
    """Return the reading of a text with an object on each line; blank lines are skipped."""
    encoding = encoding_of(member, contract.encoding if contract else None)

    def values() -> Iterator[tuple[int, Any]]:
        with open_text(member, encoding) as text:
            lines = BoundedLines(text, member.budget, member.label)
            for number, line in enumerate(lines, start=1):
                lines.end_record()
                if line.strip():
                    yield number, _parse(line.strip(), f"{member.label}, line {number}")

    return _reading(member, contract, values, {"encoding": f"{encoding.name}: {encoding.why}"})


def _parse(line: str, where: str) -> Any:
    try:
        value, end = DECODER.raw_decode(line)
        if end < len(line):
            raise json.JSONDecodeError("Extra data", line, end)  # noqa: TRY301 - told as the others are
        return value  # noqa: TRY300
    except json.JSONDecodeError as error:
        raise RefusedFile(
            f"{where}, character {error.colno}: not JSON that can be read ({error.msg}); a document of several lines "
            "has a name that ends in .json"
        ) from error
    except RecursionError as error:
        raise RefusedFile(f"{where}: not JSON that can be read (it nests its values too deeply)") from error
    except ValueError as error:
        raise RefusedFile(f"{where}: not JSON that can be read ({error})") from error


def _reading(
    member: Member,
    contract: Contract | None,
    values: Callable[[], Iterator[tuple[int, Any]]],
    evidence: dict[str, Any],
) -> Reading:
    holds = _look(_rows(member, values()), member)
    columns = {name: _column(name, kinds, contract) for name, kinds in holds.items()}
    most = max(1, min(_BATCH_ROWS, _BATCH_CELLS // max(1, len(columns))))

    def batches() -> Iterator[RowBatch]:
        lines: list[int] = []
        found: list[dict[str, Any]] = []
        weight = 0
        for line, row in _rows(member, values()):
            lines.append(line)
            found.append(row)
            weight += sum(len(value) for value in row.values() if isinstance(value, str))
            if len(found) >= most or weight >= member.budget.line_bytes:
                yield _batch(columns, found, lines, member)
                lines, found, weight = [], [], 0
        if found:
            yield _batch(columns, found, lines, member)

    return Reading(list(columns), typed=True, batches=batches, unit="line", evidence=evidence)


def _rows(member: Member, values: Iterable[tuple[int, Any]]) -> Rows:
    for line, value in values:
        if not isinstance(value, dict):
            raise RefusedFile(
                f'{member.label}, line {line}: a row must be a JSON object like {{"name": "value"}}, and this is '
                f"{_named(value)}"
            )
        yield line, value


def _named(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _look(rows: Rows, member: Member) -> dict[str, set[str]]:
    """Return the kinds of values of each column, in the order in which columns appear; ``null`` has no kind."""
    holds: dict[str, set[str]] = {}
    spelled: dict[str, tuple[str, int]] = {}
    for line, row in rows:
        for name, value in row.items():
            kinds = holds.get(name)
            if kinds is None:
                _check_name(name, line, spelled, member)
                member.budget.check("columns", len(holds) + 1, f"{member.label} has more than {len(holds)} columns")
                kinds = holds[name] = set()
            if value is not None and "text" not in kinds:
                kinds.add(_KINDS.get(type(value), _text_kind)(value))
    return holds


def _check_name(name: str, line: int, spelled: dict[str, tuple[str, int]], member: Member) -> None:
    if _halved(name):
        raise _refused_half(member, line, "a key")
    other, before = spelled.setdefault(table_key(name), (name, line))
    if other != name:
        raise RefusedFile(
            f"{member.label}, line {line}: the key {content(name[:100])!r} differs from {content(other[:100])!r} (line "
            f"{before}) only in letter case or spacing, and databases do not tell such columns apart: write it one way"
        )


def _integer_kind(value: int) -> str:
    """Return the kind of an integer; ``large``: a 64-bit float would round it, ``exact``: 64 bits cannot hold it."""
    if -(2**53) <= value <= 2**53:
        return "integer"
    return "large" if -(2**63) <= value < 2**63 else "exact"


def _fraction_kind(value: Decimal) -> str:
    return "fraction" if _is_float(value) else "exact"


def _boolean_kind(_value: bool) -> str:
    return "boolean"


def _text_kind(_value: Any) -> str:
    return "text"


_KINDS: Final[dict[type, Callable[[Any], str]]] = {bool: _boolean_kind, int: _integer_kind, Decimal: _fraction_kind}


def _is_float(value: Decimal) -> bool:
    text = str(value)
    if len(text) <= _SHORT and "E" not in text:
        return True
    number = float(value)
    return math.isfinite(number) and Decimal(repr(number)) == value


def _column(name: str, kinds: set[str], contract: Contract | None) -> tuple[pa.DataType, Callable[[Any], Any]]:
    """Return the type that gives all values back unchanged, and the function that converts a value to it."""
    wanted = contract.field_of(name) if contract is not None else None
    if wanted is not None and wanted.type == "string":
        return pa.string(), _text
    if not kinds or kinds & {"text", "exact"} or ("boolean" in kinds and len(kinds) > 1):
        return pa.string(), _text
    if kinds == {"boolean"}:
        return pa.bool_(), bool
    if kinds <= {"integer", "large"}:
        return pa.int64(), int
    return (pa.float64(), float) if "large" not in kinds else (pa.string(), _text)


def _text(value: Any) -> str:
    """Return a text unchanged, and anything else as JSON."""
    return value if isinstance(value, str) else json_text(value)


def _batch(
    columns: dict[str, tuple[pa.DataType, Callable[[Any], Any]]],
    rows: list[dict[str, Any]],
    lines: list[int],
    member: Member,
) -> RowBatch:
    arrays = []
    for name, (type_, convert) in columns.items():
        try:
            values = [None if (value := row.get(name)) is None else convert(value) for row in rows]
            arrays.append(pa.array(values, type_))
        except UnicodeEncodeError as error:
            line = next(line for line, row in zip(lines, rows, strict=True) if _halved(_text(row.get(name))))
            raise _refused_half(member, line, f"the column {content(name[:100])!r}") from error
        except RecursionError as error:
            raise RefusedFile(f"{member.label}, line {lines[0]}: a value is nested too deeply") from error
    numbers = pa.array(lines, pa.int64())
    return RowBatch(pa.RecordBatch.from_arrays(arrays, list(columns)), lambda: numbers)


def _refused_half(member: Member, line: int, what: str) -> RefusedFile:
    said = "holds half of a surrogate pair (an escape such as \\ud800), which is no text"
    return RefusedFile(f"{member.label}, line {line}: {what} {said}")


def _halved(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
