"""The text of a member, decoded, with what cannot be decoded told by its line."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sluice.loading.contract import Contract
from sluice.loading.errors import RefusedFile
from sluice.loading.source import Member

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(member: Member, contract: Contract | None) -> str:
    """The contract's encoding, else what the byte order mark says, else UTF-8."""
    if contract is not None and contract.encoding is not None:
        name = codecs.lookup(contract.encoding).name
        return "utf-8-sig" if name == "utf-8" else name
    beginning = member.beginning(4)
    return next((encoding for mark, encoding in _MARKS if beginning.startswith(mark)), "utf-8")


@contextmanager
def open_text(member: Member, encoding: str) -> Iterator[io.TextIOWrapper]:
    """The text from its beginning, every line end a line feed. Bytes that are no such text raise `RefusedFile`."""
    try:
        with io.TextIOWrapper(member.open(), encoding=encoding) as text:
            yield text
    except UnicodeDecodeError as error:
        raise RefusedFile(
            f"{member.label}{_place(member, encoding)}: save it as UTF-8, or name its `encoding` in the contract"
        ) from error
    except UnicodeError as error:
        raise RefusedFile(f"{member.label} is not {encoding}: {error}") from error


def _place(member: Member, encoding: str) -> str:
    if not encoding.startswith("utf-8"):
        return f" is not {encoding}"
    with member.open() as stream:
        for number, line in enumerate(iter(lambda: stream.readline(member.budget.line_bytes), b""), start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f", line {number}: byte 0x{line[error.start]:02X} is not UTF-8"
    return " is not UTF-8"
