"""Loads into a folder of Parquet files: a table is a folder in it, and each load adds one file.

A file gets its name when it is complete. ``_common_metadata``, where Parquet's readers look for the schema of a
dataset, has the columns of the table and its owner.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from sluice.errors import TableRefused
from sluice.loading.errors import AlreadyLoaded, RefusedFile, TargetFailed
from sluice.loading.targets.plan import (
    Destination,
    FileVersion,
    LoadPlan,
    LoadQuality,
    PastLoad,
    TableColumn,
    key_of,
    loaded_by,
    make_plan,
)
from sluice.loading.targets.register import check_not_longer, load_key
from sluice.loading.targets.writing import ROW_NUMBER, TableLoad, Writer
from sluice.tables import check_name, table_key

_SCHEMA: Final = "_common_metadata"
_OWNER: Final = b"sluice.table"
_LOAD: Final = b"sluice.load"
_NOT_WIDENED: Final = "the files of a dataset are not written anew for a wider type; load into another table"
_GROUP_BYTES: Final = 32 * 1024 * 1024
"""Bytes of rows that are collected for one row group."""


class ParquetTarget:
    """The tables of one folder; they accept rows by ``append`` only."""

    holds_keys = False

    def __init__(self, url: sa.URL) -> None:
        if not url.database:
            raise ValueError("a dataset of Parquet files needs a folder: parquet:///FOLDER")
        self._folder = Path(f"/{url.database.lstrip('/')}") if url.database.startswith("/") else Path(url.database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: nothing is open between two loads."""

    def plan(self, to: Destination, found: pa.Schema) -> LoadPlan:
        """Return how a file with the columns ``found`` would go into the table as it is now; nothing is changed.

        Raises `RefusedFile`, `sluice.TableRefused` and `TargetFailed`.
        """
        with _sentences():
            return self._plan(to, found)

    def is_loaded(self, to: Destination, file: FileVersion) -> bool:
        """Return whether the table has this version of the file. Raises `TargetFailed`."""
        with _sentences():
            return (self._table(to) / _name(to, file)).exists()

    def history(self, table: str, count: int) -> list[PastLoad]:
        """Return the last ``count`` loads into a table, named with its schema; oldest first. Raises `TargetFailed`."""
        with _sentences():
            folder = self._folder / table
            folder = folder if folder.is_dir() else self._folder.joinpath(*table.split(".", 1))
            files = sorted(folder.glob("*.parquet"), key=_time)[-count:]
            return _past_loads(files)

    @contextmanager
    def load(self, to: Destination, plan: LoadPlan, file: FileVersion, *, unit: str = "line") -> Iterator[TableLoad]:
        """Load a file, which appears as a whole if the block is left without an error, and otherwise not at all.

        ``unit`` is what the places of rows count, for messages. Raises `AlreadyLoaded`, `RefusedFile`,
        `sluice.TableRefused` and `TargetFailed`; the table is then as it was before.
        """
        table = self._table(to)
        with self._alone(table):
            with _sentences():
                schema, plan = plan.schema, self._plan(to, plan.schema)
                if plan.schema != schema:
                    raise TargetFailed(f"the table {to.full_name} was changed by another load", transient=True)
                if (table / _name(to, file)).exists():
                    raise AlreadyLoaded
                self._check_not_grown(table, to, file)
                whole = _whole(plan)
                writer = FileWriter(table, whole)
            load = TableLoad(writer, plan, key=to.key, unit=unit, known=partial(_known, table, key_of(to, plan.schema)))
            try:
                yield load
                load.finish()
                with _sentences():
                    writer.end(_entry(file, load.quality))
                    self._describe(table, to, whole)
                    writer.keep(_name(to, file))
            finally:
                load.close()

    # -------------------------------------------------------------------------------------------------- the steps

    def _table(self, to: Destination) -> Path:
        check_name(to.table)
        for part in (to.schema or "-", to.table):
            if part.startswith((".", "_")) or "/" in part:
                raise TableRefused(f"{part!r} is no name for a folder of Parquet files")
        above = self._folder / to.schema if to.schema else self._folder
        key = table_key(to.table)
        there = (one for one in above.iterdir() if table_key(one.name) == key) if above.is_dir() else iter(())
        return next(there, above / to.table)

    @contextmanager
    def _alone(self, table: Path) -> Iterator[None]:
        """Let one load at a time into a table, and remove drafts that killed loads have left."""
        with _sentences():
            table.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(table / "_lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for draft in table.glob(".*.part"):
                draft.unlink(missing_ok=True)
            yield
        finally:
            os.close(descriptor)

    def _plan(self, to: Destination, found: pa.Schema) -> LoadPlan:
        if to.mode != "append":
            raise RefusedFile(f"a dataset of Parquet files takes `mode: append` only, and the contract says {to.mode}")
        there = self._described(self._table(to), to)
        columns = None if there is None else [TableColumn(one.name, one.type, str(one.type)) for one in there]
        plan = make_plan(to, found, columns)
        misfits = tuple(replace(one, advice=_NOT_WIDENED) for one in plan.misfits)
        if misfits and to.wider_types == "widen":
            raise RefusedFile("; ".join(map(str, misfits)))
        return replace(plan, misfits=misfits)

    def _described(self, table: Path, to: Destination) -> pa.Schema | None:
        """Return the columns of the table, or None. Raises `sluice.TableRefused` for a table of another flow."""
        file = table / _SCHEMA
        if not file.exists():
            if next(table.glob("*.parquet"), None) is None:
                return None
            if to.outside:
                raise TableRefused(
                    f"the folder {table.name!r} is there already and belongs to no flow, so a file's name does not "
                    f"lead to it: name it in the rule or the deployment, and the flow {to.flow} takes it over"
                )
            return pq.read_schema(next(table.glob("*.parquet"))).remove_metadata()
        schema = pq.read_schema(file)
        owner = _note(file, _OWNER) or {}
        if owner.get("flow", to.flow) != to.flow:
            raise TableRefused(
                f"the table {to.table!r} belongs to the flow {owner['flow']}: the flow {to.flow} may not write to it"
            )
        if to.outside and to.spelling and owner.get("spelling") not in {None, to.spelling}:
            raise TableRefused(
                f"the table {to.table!r} is filled from files named {owner['spelling']!r}, and the name "
                f"{to.spelling!r} leads to it too: rename the file, or name the table in a contract or a rule if "
                "both belong there"
            )
        return schema.remove_metadata()

    def _describe(self, table: Path, to: Destination, schema: pa.Schema) -> None:
        file = table / _SCHEMA
        owner = _note(file, _OWNER) if file.exists() else None
        if owner is not None and pq.read_schema(file).remove_metadata() == schema:
            return
        owner = owner or {"flow": to.flow, "spelling": to.spelling}
        draft = table / f".{_SCHEMA}.part"
        pq.write_metadata(schema.with_metadata({_OWNER: json.dumps(owner).encode()}), draft)
        _store(draft, file)

    def _check_not_grown(self, table: Path, to: Destination, file: FileVersion) -> None:
        for one in table.glob(f"{file.version.partition('-')[0]}-*.parquet"):
            load = _note(one, _LOAD)
            if load is not None and load["made_ns"] == file.made_ns and load["rows"]:
                check_not_longer(to, file, load["version"], load["digest"], load["rows"], load["loaded_at"])


def _known(table: Path, key: list[str], keys: Iterable[pa.RecordBatch]) -> list[tuple[str, list[int]]]:
    """Return the rows whose key the table has: see `writing.Known`. Each file of the dataset is from one load."""
    found = []
    with _sentences():
        mine = pa.Table.from_batches(list(keys))
        for file in sorted(table.glob("*.parquet"), key=_time):
            theirs = pq.read_table(file, columns=key)
            there = mine.join(theirs, key, join_type="left semi")[ROW_NUMBER]
            found.append((loaded_by(_past_loads([file])), sorted(there.to_pylist())))
    return found


class FileWriter(Writer):
    """Writes the rows of one load into a file beside the others, which readers ignore until it is kept."""

    def __init__(self, table: Path, schema: pa.Schema) -> None:
        super().__init__()
        self._table = table
        self._schema = schema
        self._draft = table / f".{secrets.token_hex(8)}.part"
        self._writer: pq.ParquetWriter | None = pq.ParquetWriter(self._draft, schema, compression="zstd")
        self._gathered: list[pa.RecordBatch] = []
        self._gathered_bytes = 0

    def write(self, rows: pa.RecordBatch) -> None:
        """Add rows; columns that the file lacks are null."""
        self._gathered.append(
            pa.RecordBatch.from_arrays([_column(rows, one) for one in self._schema], schema=self._schema)
        )
        self._gathered_bytes += rows.nbytes
        if self._gathered_bytes >= _GROUP_BYTES:
            self.finish()

    def finish(self) -> None:
        """Write the rows that were collected."""
        if self._gathered and self._writer is not None:
            with _sentences():
                self._writer.write_table(pa.Table.from_batches(self._gathered))
        self._gathered, self._gathered_bytes = [], 0

    def end(self, load: dict[str, Any]) -> None:
        """Complete the file, with ``load`` in its metadata."""
        if self._writer is not None:
            self._writer.add_key_value_metadata({_LOAD: json.dumps(load).encode()})
            self._writer.close()
        self._writer = None

    def keep(self, name: str) -> None:
        """Give the file its name, so that readers find it."""
        _store(self._draft, self._table / name)

    def close(self) -> None:
        """Remove the file unless it was kept."""
        if self._writer is not None:
            self._writer.close()
        self._draft.unlink(missing_ok=True)


def _column(rows: pa.RecordBatch, one: pa.Field) -> pa.Array:
    place = rows.schema.get_field_index(one.name)
    return pa.nulls(rows.num_rows, one.type) if place < 0 else pc.cast(rows.column(place), one.type)


def _whole(plan: LoadPlan) -> pa.Schema:
    """Return all columns of the table, added ones included."""
    there = [pa.field(one.name, one.type) for one in plan.there]
    return pa.schema([*there, *(plan.schema.field(name) for name in (plan.added if there else plan.schema.names))])


def _entry(file: FileVersion, quality: LoadQuality) -> dict[str, Any]:
    """Return what is noted of a load in its file."""
    what = {"file": file.name, "version": file.version, "digest": file.digest, "made_ns": file.made_ns}
    counts = {"rows": quality.rows, "bad": quality.bad, "empty_shares": dict(quality.empty_shares)}
    return {**what, **counts, "loaded_at": datetime.now(UTC).isoformat()}


def _past_loads(files: Iterable[Path]) -> list[PastLoad]:
    loads = [load for one in files if (load := _note(one, _LOAD)) is not None]
    return [
        PastLoad(one["file"], one["loaded_at"], LoadQuality(one["rows"], one["bad"], one["empty_shares"]))
        for one in loads
    ]


def _name(to: Destination, file: FileVersion) -> str:
    return f"{file.version.partition('-')[0]}-{load_key(to, file)[:32]}.parquet"


def _time(file: Path) -> int:
    return file.stat().st_mtime_ns


def _note(file: Path, key: bytes) -> dict[str, Any] | None:
    """Return what was noted in a file; None if nothing readable was."""
    with suppress(ValueError):
        found = json.loads((pq.read_metadata(file).metadata or {}).get(key, b"null"))
        return found if isinstance(found, dict) else None
    return None


def _store(draft: Path, file: Path) -> None:
    """Rename a complete draft to the file, safely for a power cut."""
    _sync(draft)
    draft.replace(file)
    _sync(file.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TargetFailed(f"the folder of Parquet files: {error}", transient=False) from error
    except pa.ArrowException as error:
        raise TargetFailed(
            f"the dataset of Parquet files cannot be read or written: {error}", transient=False
        ) from error
