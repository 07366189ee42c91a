"""Reads XML by a contract: each element of one name is a row, its attributes and elements are the columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final
from xml.parsers import expat

import pyarrow as pa

from sluice.loading.contracts.contract import Contract
from sluice.loading.errors import RefusedFile
from sluice.loading.formats.text.lines import empty_is_null
from sluice.loading.reading.batch import Reading, RowBatch
from sluice.loading.reading.source import Member
from sluice.loading.showing import content

_PIECE_BYTES: Final = 64 * 1024
_BATCH_ROWS: Final = 10_000
_DEEPEST: Final = 100
_BATCH_BYTES: Final = 8 * 1024 * 1024

Row = tuple[int, dict[str, str | None]]


def read_xml(member: Member, contract: Contract | None) -> Reading:
    """Return rows of text: a row's attributes and elements are columns, deeper ones with their path (``address/city``).

    Namespaces of names are ignored. Document types and entities are refused, and so is an element that a row has twice,
    which would be two values of one column.
    """
    tag = contract.sluice.row_tag if contract is not None else None
    if tag is None:
        raise RefusedFile(
            f"{member.label}: the contract of an XML file names the element that is a row, for example `sluice: "
            f"{{row_tag: {_example(member) or 'item'}}}`"
        )
    encoding = contract.encoding if contract is not None else None
    columns: dict[str, None] = {}
    for _, row in _rows(member, tag, encoding):
        columns.update(dict.fromkeys(row))
        member.budget.check("columns", max(1, len(columns)), f"{member.label} has {len(columns)} columns")
    example = _example(member)
    if not columns and example is not None:
        raise RefusedFile(
            f"{member.label} has no element {content(tag)!r} with anything in it, which the contract names as its "
            f"`row_tag`; its rows may be {content(example)!r}"
        )

    null = "" if empty_is_null(contract) else None

    def batches() -> Iterator[RowBatch]:
        waiting: list[Row] = []
        weight = 0
        for line, row in _rows(member, tag, encoding):
            waiting.append((line, row))
            weight += 50 * len(columns) + sum(len(value) for value in row.values() if value)
            if len(waiting) >= _BATCH_ROWS or weight >= _BATCH_BYTES:
                yield _batch(waiting, columns, null)
                waiting, weight = [], 0
        if waiting:
            yield _batch(waiting, columns, null)

    return Reading(list(columns), typed=False, batches=batches, unit="line", evidence={"element of a row": tag})


def _batch(rows: list[Row], columns: dict[str, None], null: str | None) -> RowBatch:
    texts = ([row.get(name) for _, row in rows] for name in columns)
    arrays = [pa.array([None if text == null else text for text in one], pa.string()) for one in texts]
    lines = pa.array([line for line, _ in rows], pa.int64())
    return RowBatch(pa.RecordBatch.from_arrays(arrays, list(columns)), lambda: lines)


def _rows(member: Member, tag: str, encoding: str | None) -> Iterator[Row]:
    found = _Rows(member, tag, encoding)
    with member.open() as stream:
        while piece := stream.read(_PIECE_BYTES):
            yield from found.feed(piece)
        yield from found.feed(b"", last=True)


def _example(member: Member) -> str | None:
    """Return the name of the first element below the outermost one, if there is any, as an example for messages."""
    names: list[str] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, _attributes: names.append(name)
    with suppress(expat.ExpatError):
        parser.Parse(member.beginning(_PIECE_BYTES))
    return _local(names[1]) if len(names) > 1 else None


def _local(name: str) -> str:
    return name.rpartition(":")[2]


class _Rows:
    """The rows of an XML text that is read in pieces."""

    def __init__(self, member: Member, tag: str, encoding: str | None) -> None:
        self._member = member
        self._tag = tag
        self._parser = expat.ParserCreate(encoding)
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._done: list[Row] = []
        self._row: dict[str, str | None] | None = None
        self._line = 0
        self._path: list[str] = []
        self._texts: list[list[str]] = []
        self._parents: list[bool] = []
        self._weight = 0

    def feed(self, piece: bytes, *, last: bool = False) -> list[Row]:
        """Return the rows that end in this piece."""
        before = self._weight
        try:
            self._parser.Parse(piece, last)
        except expat.ExpatError as error:
            raise RefusedFile(
                f"{self._member.label}, line {error.lineno}, character {error.offset + 1}: not XML that can be read "
                f"({expat.ErrorString(error.code)})"
            ) from error
        except (LookupError, ValueError) as error:
            if isinstance(error, RefusedFile) or not isinstance(error, LookupError):
                raise
            raise RefusedFile(f"{self._member.label} is in an encoding that is not known: {error}") from error
        if self._weight == before:  # one long name, attribute or comment
            self._weigh(len(piece))
        done, self._done = self._done, []
        return done

    def _weigh(self, count: int) -> None:
        self._weight += count
        if self._weight > self._member.budget.line_bytes:
            line = self._line or self._parser.CurrentLineNumber
            self._member.budget.exceeded("line_bytes", f"{self._member.label}, line {line}: a row is too long")

    def _refused(self, what: str) -> RefusedFile:
        return RefusedFile(f"{self._member.label}, line {self._parser.CurrentLineNumber}: {what}")

    def _doctype(self, *_about: object) -> None:
        raise self._refused("a document type (<!DOCTYPE …>) is not accepted: it can make a small file a huge one")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        local = _local(name)
        if self._row is None:
            self._weight = 0
            if local != self._tag:
                return
            self._row, self._line = {}, self._parser.CurrentLineNumber
        else:
            if local == self._tag:
                raise self._refused(f"an element {content(local)!r} stands in another one, so that rows have no end")
            self._parents[-1] = True
            self._path.append(local)
            if len(self._path) > _DEEPEST:
                raise self._refused("a row nests its elements too deeply")
        self._texts.append([])
        self._parents.append(False)
        missing = False
        for key, value in attributes.items():
            if key.endswith(":nil"):
                missing = value in {"true", "1"}
            elif not key.startswith(("xmlns", "xsi:")):
                self._put([*self._path, _local(key)], value)
        if missing:
            self._put(self._path, None)
        self._weigh(len(name) + sum(len(key) + len(value) for key, value in attributes.items()))

    def _text(self, text: str) -> None:
        if self._row is not None:
            self._texts[-1].append(text)
            self._weigh(len(text))

    def _end(self, _name: str) -> None:
        if self._row is None:
            self._weight = 0
            return
        text, is_parent = "".join(self._texts.pop()), self._parents.pop()
        if is_parent or not self._path:
            if text.strip():
                raise self._refused(f"the text {content(text.strip()[:40])!r} stands beside elements, in no column")
        elif "/".join(self._path) not in self._row or self._row["/".join(self._path)] is not None or text:
            self._put(self._path, text)
        if self._path:
            self._path.pop()
            return
        self._done.append((self._line, self._row))
        self._row, self._line, self._weight = None, 0, 0

    def _put(self, path: list[str], value: str | None) -> None:
        column = "/".join(path)
        row = self._row if self._row is not None else {}
        if column in row:
            raise self._refused(f"{content(column)!r} stands twice in one row: which value counts?")
        row[column] = value
        self._weigh(len(column) + 50)
