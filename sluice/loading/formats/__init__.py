"""How files of each format are read: one module each, and the choice among them by the end of the name."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Final, NamedTuple

from sluice.loading.batch import Reading, RowBatch
from sluice.loading.contract import Contract
from sluice.loading.errors import RefusedFile
from sluice.loading.source import Member, packing_of

Reader = Callable[[Member, Contract | None], Reading]


class Format(NamedTuple):
    """A format: its endings, whether it is text, and where its reader is."""

    name: str
    endings: tuple[str, ...]
    text: bool
    module: str
    reader: str


FORMATS: Final = (
    Format("delimited text", (".csv", ".tsv", ".tab", ".psv", ".txt"), True, "delimited", "read_delimited"),
    Format("fixed width", (".fwf",), True, "fixed_width", "read_fixed_width"),
    Format("JSON", (".json",), True, "json_rows", "read_json"),
    Format("JSON Lines", (".jsonl", ".ndjson"), True, "json_rows", "read_json_lines"),
    Format("XML", (".xml",), True, "xml_rows", "read_xml"),
    Format("Parquet", (".parquet",), False, "parquet", "read_parquet"),
    Format("Arrow", (".arrow", ".arrows", ".feather", ".ipc"), False, "arrow", "read_arrow"),
    Format("Excel", (".xlsx", ".xlsm", ".xls", ".ods"), False, "excel", "read_excel"),
)
_BINARY: Final = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\xd0\xcf\x11\xe0": "an Office document",
    b"%PDF": "a PDF document",
    b"SQLite f": "a SQLite database",
}
"""What a text does not begin with."""


def format_of(member: Member, contract: Contract | None = None) -> Format:
    """How the member is read, by its name or by the contract. Raises `RefusedFile` where neither says it."""
    ending = posixpath.splitext(member.name)[1].lower()
    found = next((one for one in FORMATS if ending in one.endings), None)
    named = contract.format if contract is not None else None
    if named is not None:
        found = next((one for one in FORMATS if f".{named.lower()}" in one.endings), None)
        if found is None:
            raise RefusedFile(f"{member.label}: the contract's `format` is {named!r}, which is none of {_endings()}")
    if found is None:
        raise RefusedFile(
            f"{member.label} is of no known kind: its name must end in {_endings()} (or that and .gz, .zst, .bz2, .xz)"
        )
    fields = contract.file_schema.fields if contract is not None and contract.file_schema is not None else ()
    if found.name == "delimited text" and any(field.width for field in fields):
        return next(one for one in FORMATS if one.name == "fixed width")
    return found


def read(member: Member, contract: Contract | None = None) -> Reading:
    """How the member is read, with its columns; no more columns, rows and cells come out of it than the budget allows.

    Raises `RefusedFile` and `OverBudget`, here or while the rows are read.
    """
    found = format_of(member, contract)
    if found.text:
        _check_text(member)
    reader: Reader = getattr(import_module(f"{__name__}.{found.module}"), found.reader)
    reading = reader(member, contract)
    member.budget.check("columns", len(reading.columns), f"{member.label} has {len(reading.columns)} columns")
    return replace(
        reading,
        batches=lambda: _counted(reading, member),
        evidence={"format": found.name, **({"packing": member.packing} if member.packing else {}), **reading.evidence},
    )


def _endings() -> str:
    return ", ".join(ending for one in FORMATS for ending in one.endings)


def _check_text(member: Member) -> None:
    beginning = member.beginning()
    packing = packing_of(beginning)
    what = f"packed with {packing}" if packing else None
    what = what or next((kind for start, kind in _BINARY.items() if beginning.startswith(start)), None)
    if what is not None:
        raise RefusedFile(f"{member.label} is {what}, whatever its name says: name it after what it is")


def _counted(reading: Reading, member: Member) -> Iterator[RowBatch]:
    rows, width, budget = 0, len(reading.columns), member.budget
    for batch in reading.batches():
        rows += batch.rows.num_rows
        budget.check("rows", rows, f"{member.label} has more than {budget.rows} rows")
        budget.check("cells", rows * width, f"{member.label} has more than {budget.cells} values")
        yield batch
