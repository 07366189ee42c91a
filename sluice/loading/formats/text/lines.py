"""Opens the text of a member for readers that take it in lines or pieces."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

from sluice.loading.contracts.contract import Contract
from sluice.loading.formats.text.encodings import TextEncoding, not_utf8, open_utf8
from sluice.loading.reading.source import Member


@contextmanager
def open_text(member: Member, encoding: TextEncoding) -> Iterator[io.TextIOWrapper]:
    """Open the text from its beginning, with each line end as a line feed. Invalid bytes raise `RefusedFile`."""
    try:
        with io.TextIOWrapper(open_utf8(member, encoding), encoding="utf-8") as text:
            yield text
    except UnicodeDecodeError:
        with open_utf8(member, encoding) as stream:
            lines = iter(lambda: stream.readline(member.budget.line_bytes), b"")
            for number, line in enumerate(lines, start=1):
                _check(member, line, number, encoding)
        raise


def empty_is_null(contract: Contract | None) -> bool:
    """Return whether an empty field is a missing value: unless the contract has ``missingValues`` without it."""
    return contract is None or contract.file_schema is None or "" in contract.file_schema.missing_values


def _check(member: Member, line: bytes, number: int, encoding: TextEncoding) -> None:
    try:
        line.decode()
    except UnicodeDecodeError:
        not_utf8(member, line, number, encoding)
