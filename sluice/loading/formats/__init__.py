"""Readers of the formats: a package for each kind of them, chosen by the ending of the file's name."""

from __future__ import annotations

import codecs
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Final, NamedTuple

from sluice.loading.contracts.contract import Contract
from sluice.loading.errors import RefusedFile
from sluice.loading.names import column_key
from sluice.loading.reading.batch import Reading, RowBatch
from sluice.loading.reading.source import Member, packing_of
from sluice.loading.showing import content

Reader = Callable[[Member, Contract | None], Reading]


class Format(NamedTuple):
    """A format: the endings of its files, whether it is text, and the module and function of its reader."""

    name: str
    endings: tuple[str, ...]
    text: bool
    module: str
    reader: str


FORMATS: Final = (
    Format(
        "delimited text", (".csv", ".tsv", ".tab", ".psv", ".txt"), True, "delimited.delimited_text", "read_delimited"
    ),
    Format("fixed width", (".fwf",), True, "text.fixed_width", "read_fixed_width"),
    Format("JSON", (".json",), True, "text.json_rows", "read_json"),
    Format("JSON Lines", (".jsonl", ".ndjson"), True, "text.json_rows", "read_json_lines"),
    Format("XML", (".xml",), True, "text.xml_rows", "read_xml"),
    Format("Parquet", (".parquet",), False, "columnar.parquet", "read_parquet"),
    Format("Arrow", (".arrow", ".arrows", ".feather", ".ipc"), False, "columnar.arrow", "read_arrow"),
    Format("Excel", (".xlsx", ".xlsm", ".xls", ".ods"), False, "spreadsheets.excel", "read_excel"),
)
_BINARY: Final = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\xd0\xcf\x11\xe0": "an Office document",
    b"%PDF": "a PDF document",
    b"SQLite f": "a SQLite database",
}
"""First bytes that no text has."""
_TEXTS: Final = {
    "HTML": re.compile(rb"<!doctype html|<html|<head|<body", re.IGNORECASE),
    "XML": re.compile(rb"<\?xml\s"),
    "JSON": re.compile(rb"(?:\[\s*)?\{\s*\""),
}
"""First bytes of other kinds of text; a delimited text of one column that begins with them has no row that is one."""
_BEGINNING: Final = 64


def format_of(member: Member, contract: Contract | None = None) -> Format:
    """Return the format of the member, by its name or the contract. Raises `RefusedFile` if neither says it."""
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
    if found.name == "delimited text" and contract is not None and any(field.width for field in contract.fields):
        return next(one for one in FORMATS if one.name == "fixed width")
    return found


def read(member: Member, contract: Contract | None = None) -> Reading:
    """Return how the member is read, with its columns; columns, rows and cells are limited by the budget.

    Raises `RefusedFile` and `OverBudget`, now or while the rows are read.
    """
    found = format_of(member, contract)
    if found.text:
        _check_text(member, "" if contract is not None and contract.fields else found.name)
    reader: Reader = getattr(import_module(f"{__name__}.{found.module}"), found.reader)
    reading = reader(member, contract)
    member.budget.check("columns", len(reading.columns), f"{member.label} has {len(reading.columns)} columns")
    _check_names(reading.columns, member)
    return replace(
        reading,
        batches=lambda: _counted(reading, member),
        evidence={"format": found.name, **({"packing": member.packing} if member.packing else {}), **reading.evidence},
    )


def _check_names(columns: Sequence[str], member: Member) -> None:
    """Refuse names that a table could not keep apart, or would confuse with those of the next file.

    Names that are equal are told apart by their order: ``id``, ``id_2``. That fails if the file has an ``id_2`` of its
    own, or if two names differ in spelling only and another file has them in the other order.
    """
    spelled: dict[str, str] = {}
    plain_names = [" ".join(name.split()) for name in columns]
    repeated = {column_key(name) for name, count in Counter(plain_names).items() if name and count > 1}
    for plain in plain_names:
        other = spelled.setdefault(column_key(plain), plain)
        if other != plain:
            raise RefusedFile(
                f"{member.label}: the columns {content(other, 100)!r} and {content(plain, 100)!r} differ only in "
                "letter case or the form of Unicode, and databases do not tell such columns apart: rename one of them"
            )
    for key, plain in spelled.items():
        stem, _, number = key.rpartition("_")
        if stem in repeated and number.isdecimal():
            raise RefusedFile(
                f"{member.label}: the column {content(stem, 100)!r} stands there twice, and the second one would be "
                f"called {content(plain, 100)!r}, which is there as well: rename one of them"
            )


def _endings() -> str:
    return ", ".join(ending for one in FORMATS for ending in one.endings)


def _check_text(member: Member, wanted: str) -> None:
    """Refuse a file that is not text, or not the kind of text ``wanted``, unless a contract names the columns."""
    beginning = member.beginning(_BEGINNING)
    packing = packing_of(beginning)
    what = f"packed with {packing}" if packing else None
    what = what or next((kind for start, kind in _BINARY.items() if beginning.startswith(start)), None)
    if wanted in {"delimited text", "JSON", "JSON Lines"}:
        text = beginning.removeprefix(codecs.BOM_UTF8).lstrip()
        others = (kind for kind, start in _TEXTS.items() if kind not in wanted and start.match(text))
        what = what or next(others, None)
    if what is not None:
        raise RefusedFile(f"{member.label} is {what}, whatever its name says: name it after what it is")


def _counted(reading: Reading, member: Member) -> Iterator[RowBatch]:
    rows, width, budget = 0, len(reading.columns), member.budget
    for batch in reading.batches():
        rows += batch.rows.num_rows
        budget.check("rows", rows, f"{member.label} has more than {budget.rows} rows")
        budget.check("cells", rows * width, f"{member.label} has more than {budget.cells} values")
        yield batch
