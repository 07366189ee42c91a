"""Loads a file into a table: reads it to learn what it holds, and again to load it in one transaction."""

from __future__ import annotations

import hashlib
import os
import posixpath
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from sluice.budgets import Budget
from sluice.display import visible
from sluice.errors import FileChanged, FileRefused, TableRefused
from sluice.files import OpenedFile, open_file
from sluice.loading.checking.inspection import begin, inspect
from sluice.loading.checking.rejects import TOLD
from sluice.loading.contracts.contract import Contract, FileDialect, LoadRules
from sluice.loading.errors import AlreadyLoaded, RefusedFile
from sluice.loading.file_rows import FileRows, OnProgress, file_rows
from sluice.loading.masking import masking_of, masks_of
from sluice.loading.names import NameFromFile, as_dropped, original_name, table_of, without_packing
from sluice.loading.reading.batch import Reading, RowBatch
from sluice.loading.reading.source import members
from sluice.loading.reading.unpacking import FileView
from sluice.loading.reporting.report import LoadReport
from sluice.loading.showing import hiding
from sluice.loading.targets import Destination, FileVersion, open_target
from sluice.loading.targets.plan import PastLoad
from sluice.loading.transfer import LookedAt, Transfer

BUDGET: Final = Budget()
_PIECE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """Where a file goes and how; its values take precedence over those of the contract."""

    table: str | None = None
    schema: str | None = None
    contract: Contract | None = None
    budget: Budget = BUDGET
    flow: str = "load-file"

    @property
    def rules(self) -> LoadRules:
        return self.contract.sluice if self.contract is not None else LoadRules()


def load_file(
    path: str | os.PathLike[str],
    database_url: str,
    *,
    table: str | None = None,
    schema: str | None = None,
    contract: Contract | None = None,
    budget: Budget = BUDGET,
    flow: str = "load-file",
    masking_secret: SecretStr | None = None,
    approved: bool = False,
    progress: OnProgress | None = None,
) -> LoadReport:
    """Load the rows of a file into a table, in one transaction: all that the contract accepts, or none.

    The table is ``table``, or that of the contract, or is named after the file; in that case it must not belong to
    another flow. The same version of a file is loaded into a table once. ``masking_secret`` is for columns masked with
    ``hmac``, by default the environment's ``SLUICE_MASKING_SECRET``. ``progress`` is called with the share of the work
    that is done, from 0 to 1, and the number of rows read so far. ``approved`` says that a person has approved loading
    the good rows, however many are bad; it has an effect if the contract says ``approve``.

    Raises `RefusedFile` (also `AmbiguousFile` and `NeedsApproval`), `sluice.OverBudget` and `TargetFailed`; then
    nothing has changed in the table. Raises `ValueError` for an invalid contract or URL.
    """
    request = LoadRequest(table=table, schema=schema, contract=contract, budget=budget, flow=flow)
    started = time.perf_counter()
    with opened(Path(path)) as raw, open_target(database_url) as target:
        version = _version(raw)
        to = destination(raw, request)
        if target.is_loaded(to, version):
            return LoadReport(version.name, to.full_name, to.mode, 0, already=True)
        masking = masking_of(contract, masking_secret)
        half = _Halves(progress)
        looked_at = look_at(raw, request, half.first, at_once=True)
        second = half.second if looked_at.read else progress
        try:
            with hiding(bool(masking)):
                report = Transfer(looked_at, to, version, raw, contract, masking, second, approved).run(target)
        except AlreadyLoaded:  # by another load meanwhile
            return LoadReport(version.name, to.full_name, to.mode, 0, already=True)
        return replace(report, seconds=time.perf_counter() - started, bytes=raw.size)


def past_loads(database_url: str, table: str, count: int) -> list[PastLoad]:
    """Return the last ``count`` loads into a table, named with its schema; the oldest first. Raises `TargetFailed`."""
    with open_target(database_url) as target:
        return target.history(table, count)


def look_at(
    raw: OpenedFile, request: LoadRequest, progress: OnProgress | None = None, *, at_once: bool = False
) -> LookedAt:
    """Read the whole file and load nothing. Raises `RefusedFile`, `sluice.OverBudget` and `ValueError`.

    With ``at_once`` the rows are not read yet if the contract names all types and no row may be bad.
    """
    name = Path(raw.path).name
    contract = request.contract
    original = original_name(name)
    if original is not None and contract is not None:  # as `RejectedRows` writes it
        written = FileDialect(delimiter=",", header=True, quote_char='"')
        contract = contract.model_copy(update={"dialect": written, "encoding": "utf-8", "format": None})
    with hiding(bool(masks_of(contract))):
        rows = file_rows(list(members(raw, name, request.budget)), contract, display(name))
        if original is not None:
            rows = _without_told(rows)
        if at_once and request.rules.on_bad_rows == "refuse":
            begun = begin(rows, contract)
            begun.look_ahead(rows)
            if begun.types_known:
                return LookedAt(rows, begun, read=False)
        return LookedAt(rows, inspect(rows, contract, progress))


def destination(raw: OpenedFile, request: LoadRequest) -> Destination:
    """Return where the file goes."""
    name = Path(raw.path).name
    rules = request.rules
    named = request.table or rules.table
    schema = request.contract.file_schema if request.contract is not None else None
    found = NameFromFile(named, named) if named else table_of(_stem(name))
    return Destination(
        table=found.table,
        flow=request.flow,
        schema=request.schema or rules.database_schema,
        outside=named is None,
        spelling=None if named else found.spelling,
        mode=rules.mode,
        key=schema.key if schema is not None else (),
        new_columns=rules.new_columns,
        wider_types=rules.wider_types,
    )


def display(name: str) -> str:
    """Return a file's name as text that can be shown and stored, whatever bytes it has."""
    return visible(name.encode(errors="surrogateescape").decode(errors="replace"))


@contextmanager
def opened(path: Path) -> Iterator[OpenedFile]:
    """Open the file as it was announced; errors within the block get its name in their messages."""
    name = display(path.name)
    try:
        with open_file(path) as raw:
            yield raw
    except RefusedFile as error:
        if str(error).startswith(name):
            raise
        error.args = (f"{name}: {error}",)
        raise
    except (FileRefused, FileChanged, TableRefused) as error:
        raise RefusedFile(f"{name}: {error}") from error
    except OSError as error:
        raise RefusedFile(f"{name} cannot be read: {error.strerror or error} ({path})") from error


def _version(raw: OpenedFile) -> FileVersion:
    digest = hashlib.file_digest(raw, "sha256").hexdigest()
    raw.seek(0)
    first = partial(_digest_of_first, raw.fileno())
    return FileVersion(display(Path(raw.path).name), raw.version, digest, raw.made_ns, first)


def _digest_of_first(descriptor: int, count: int) -> str:
    digest = hashlib.sha256()
    with FileView(descriptor) as view:
        while count and (piece := view.read(min(count, _PIECE_BYTES))):
            digest.update(piece)
            count -= len(piece)
    return digest.hexdigest()


def _stem(name: str) -> str:
    """Return the name without the endings of packing and format."""
    return posixpath.splitext(without_packing(as_dropped(original_name(name) or name)))[0]


def _without_told(rows: FileRows) -> FileRows:
    """Return the rows of a file of bad rows without the columns that say what is wrong."""
    count = len(TOLD)

    def rest(reading: Reading) -> Reading:
        if tuple(reading.columns[:count]) != TOLD:
            return reading

        def batches() -> Iterator[RowBatch]:
            for batch in reading.batches():
                yield replace(batch, rows=batch.rows.select(range(count, batch.rows.num_columns)))

        return replace(reading, columns=reading.columns[count:], batches=batches)

    return replace(rows, members=[(member, rest(reading)) for member, reading in rows.members])


class _Halves:
    """Reports two readings of a file as one progress from 0 to 1."""

    def __init__(self, progress: OnProgress | None) -> None:
        self._progress = progress

    def first(self, share: float, rows: int) -> None:
        if self._progress is not None:
            self._progress(share / 2, rows)

    def second(self, share: float, rows: int) -> None:
        if self._progress is not None:
            self._progress(0.5 + share / 2, rows)
