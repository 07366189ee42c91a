"""Reads Arrow IPC files and streams, and Feather files, which are the same, a record batch at a time."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pyarrow as pa

from sluice.loading.contracts.contract import Contract
from sluice.loading.errors import RefusedFile
from sluice.loading.formats.columnar.arrow_messages import check_messages
from sluice.loading.formats.columnar.arrow_weight import light_batches
from sluice.loading.formats.columnar.plain import Looked, look, plain
from sluice.loading.reading.batch import Reading, RowBatch
from sluice.loading.reading.source import Member

_MAGIC: Final = b"ARROW1\0\0"
_OLD: Final = b"FEA1"


def read_arrow(member: Member, _contract: Contract | None) -> Reading:
    """Return the file's own columns and types, converted as `plain` says.

    The size of each record batch in memory is computed from the file and checked against the budget before it is read.
    """
    if member.beginning(4) == _OLD:
        raise RefusedFile(f"{member.label} is a Feather file of version 1, which Arrow has given up: write it anew")
    looked = Looked()
    with _messages(member) as stream:
        check_messages(stream, member, is_file=_is_file(member))

    def raw() -> Iterator[pa.RecordBatch]:
        with _messages(member) as stream:
            yield from light_batches(_batches(stream), member)

    def batches() -> Iterator[RowBatch]:
        with _sentences(member):
            for batch in raw():
                yield RowBatch(plain(batch, looked))

    with _messages(member) as stream:
        columns = pa.ipc.open_stream(stream).schema.names
    look(raw(), looked, member.label)
    return Reading(columns, typed=True, batches=batches, unit="row", evidence=looked.evidence)


@contextmanager
def _sentences(member: Member) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeError, MemoryError, struct.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise RefusedFile(
            f"{member.label} is no readable Arrow file: {str(error) or 'it asks for more memory than there is'}"
        ) from error


@contextmanager
def _messages(member: Member) -> Iterator[io.BufferedReader]:
    """Open the member at its schema: a file is a stream with bytes before it and an index after it."""
    with _sentences(member), member.open() as stream:
        stream.read(len(_MAGIC) if _is_file(member) else 0)
        yield stream


def _is_file(member: Member) -> bool:
    return member.beginning(len(_MAGIC)) == _MAGIC


def _batches(stream: io.BufferedReader) -> Iterator[pa.RecordBatch]:
    for batch in pa.ipc.open_stream(stream):
        batch.validate(full=True)
        yield batch
