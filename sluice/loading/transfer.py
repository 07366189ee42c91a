"""The second reading of a file: writes its rows into the table and its bad rows into a file, in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from sluice.files import OpenedFile, watched_folder
from sluice.loading.checking.checked_batch import CheckedBatch, Repeats, check_batch
from sluice.loading.checking.inspection import Inspection, inspect, said_of
from sluice.loading.checking.rejects import RejectedRows
from sluice.loading.contracts.contract import Contract, LoadRules
from sluice.loading.errors import RefusedFile
from sluice.loading.file_rows import FileRows, OnProgress
from sluice.loading.masking import Masking
from sluice.loading.names import REJECTED_ENDING, column_names
from sluice.loading.reporting.report import BadRows, LoadReport, bad_rows, columns_told
from sluice.loading.targets import Destination, FileVersion, LoadPlan, TableLoad, Target
from sluice.loading.targets.plan import key_of
from sluice.loading.targets.writing import ROW_NUMBER
from sluice.protocol import REJECTED_FOLDER


class NeedsApproval(RefusedFile):
    """More rows are bad than the contract allows; a person may approve loading the good ones."""

    def __init__(self, message: str, bad: BadRows | None = None) -> None:
        super().__init__(message)
        self.bad = bad


@dataclass(frozen=True, slots=True)
class LookedAt:
    """A file that was read once, or whose contract says all that must be known before it is loaded."""

    rows: FileRows
    inspection: Inspection
    read: bool = True
    """Whether the inspection has seen the rows; otherwise it sees them while they are loaded."""

    @property
    def schema(self) -> pa.Schema:
        """The columns as they are loaded, with names that a database keeps apart."""
        columns = [one for one in self.inspection.columns if not one.dropped]
        names = column_names([one.spec.name for one in columns])
        return pa.schema([pa.field(name, one.loaded_type) for name, one in zip(names, columns, strict=True)])


@dataclass(slots=True)
class Transfer:
    """One file and its destination."""

    looked_at: LookedAt
    to: Destination
    version: FileVersion
    raw: OpenedFile
    contract: Contract | None
    masking: Masking
    progress: OnProgress | None
    approved: bool
    rejected: Path | None = None

    @property
    def rules(self) -> LoadRules:
        return self.contract.sluice if self.contract is not None else LoadRules()

    @property
    def found(self) -> Inspection:
        return self.looked_at.inspection

    def run(self, target: Target) -> LoadReport:
        """Load the rows that can be loaded. Raises `RefusedFile` and `TargetFailed`; then nothing has changed."""
        if self.found.bad:
            self._check_bad()
        schema = self.looked_at.schema
        if self.found.columns and not schema.names:
            raise RefusedFile(f"{self.looked_at.rows.label}: the contract drops all of its columns")
        plan = target.plan(self.to, schema)
        if plan.misfits and self.to.wider_types == "refuse":
            schema = self._as_there(plan, schema)
            plan = target.plan(self.to, schema)
        self._check_masked(plan)
        if self.looked_at.read and not self.found.rows and not plan.there and not self.found.types_known:
            return replace(self._report(plan, schema), columns=[])
        load = self._load(target, plan)
        report = self._report(plan, schema)
        made = not plan.there
        return replace(report, made=made, rows=load.rows, rejected=self.rejected, notes=[*report.notes, *load.notes])

    def _report(self, plan: LoadPlan, schema: pa.Schema) -> LoadReport:
        bad = bad_rows(self.found, self.looked_at.rows.unit)
        return LoadReport(
            self.version.name,
            self.to.full_name,
            self.to.mode,
            0,
            bad=bad if bad.count else None,
            columns=columns_told(self.found, schema.names, plan.schema),
            evidence=self.looked_at.rows.evidence,
            notes=[*self.looked_at.rows.notes, *lacking_columns(plan)],
        )

    def _load(self, target: Target, plan: LoadPlan) -> TableLoad:
        unit = self.looked_at.rows.unit
        with ExitStack() as outer, target.load(self.to, plan, self.version, unit=unit) as load:
            rejects = None
            held = target.holds_keys and self.rules.on_bad_rows == "refuse"
            if self.to.key and self.to.mode == "append" and plan.there and not held:
                self._find_known(load, plan)
            if self.found.bad:  # their file goes again where the transaction does not commit
                masked = [one.secret for one in self.found.columns]
                folder, inner = rejected_place(self.raw)
                rejects = outer.enter_context(RejectedRows(folder, inner, self.looked_at.rows.columns, masked))
            if self.looked_at.read:
                self._write(load, plan, rejects)
            else:
                self._write_at_once(load, plan)
            self.raw.verify()
            load.bad, load.empty_shares = self.found.bad, self._empty_shares(plan)
            self.rejected = rejects.keep() if rejects is not None else None
        return load

    def _write(self, load: TableLoad, plan: LoadPlan, rejects: RejectedRows | None) -> None:
        """Load the good rows of a file that was read before."""
        types = self._types(plan.schema)
        first_row = 0
        for label, batch in self.looked_at.rows.batches(self.progress):
            checked = check_batch(
                self.found.columns,
                batch,
                first_row,
                constraints=rejects is not None,
                repeats=self.found.repeats,
                types=types,
            )
            first_row += batch.rows.num_rows
            if rejects is not None:
                rejects.add(label, checked)
            elif checked.bad:
                raise RefusedFile(said_of(label, checked.bad[0], self.looked_at.rows.unit))
            self._put(load, plan, checked)

    def _write_at_once(self, load: TableLoad, plan: LoadPlan) -> None:
        """Load the rows while they are read for the first time; a bad row undoes the load."""
        found, rows = self.found, self.looked_at.rows
        types = self._types(plan.schema)
        refused: RefusedFile | None = None
        first_row = 0
        for label, batch in rows.batches(self.progress):
            checked = check_batch(found.columns, batch, first_row, types=types)
            first_row += batch.rows.num_rows
            found.add(label, batch, checked)
            if found.bad or refused is not None:
                continue  # nothing is loaded any more: the others are only counted
            try:
                self._put(load, plan, checked)
            except RefusedFile as error:
                if not found.unique:
                    raise
                refused = error  # it may be about a row that repeats another, of which more is said below
        found.find_repeats(rows, types)
        if found.bad:
            raise RefusedFile(found.refusal(rows.unit)) from refused
        if refused is not None:
            raise refused

    def _put(self, load: TableLoad, plan: LoadPlan, checked: CheckedBatch) -> None:
        load.write(self._masked(plan, checked), checked.places)

    def _masked(self, plan: LoadPlan, checked: CheckedBatch) -> pa.RecordBatch:
        columns = zip(self.found.columns, checked.good.columns, strict=True)
        arrays = [self.masking.column(one.spec.name, values) for one, values in columns if not one.dropped]
        return pa.RecordBatch.from_arrays(arrays, schema=plan.schema)

    def _find_known(self, load: TableLoad, plan: LoadPlan) -> None:
        """Count rows whose primary key the table has already as bad."""
        types = self._types(plan.schema)
        if not self.looked_at.read:
            found = inspect(self.looked_at.rows, self.contract, types=types)
            self.looked_at = replace(self.looked_at, inspection=found, read=True)
        key = ", ".join(self.to.key)
        what = f"is a key ({key})" if len(self.to.key) == 1 else f"begins a key ({key})"
        first = next(place for place, one in enumerate(self.found.columns) if one.spec.name == self.to.key[0])
        repeats = [
            Repeats(f"{what} that the table {self.to.full_name} has already, {by}", rows, first)
            for by, rows in load.known(self._keys(plan, types))
        ]
        self.found.add_repeats(repeats, self.looked_at.rows, types)
        if self.found.bad:
            self._check_bad()

    def _keys(self, plan: LoadPlan, types: list[pa.DataType | None]) -> Iterator[pa.RecordBatch]:
        """Yield the keys of the good rows as they are loaded, with the numbers of the rows."""
        names = key_of(self.to, plan.schema)
        first_row = 0
        for _, batch in self.looked_at.rows.batches():
            checked = check_batch(self.found.columns, batch, first_row, repeats=self.found.repeats, types=types)
            first_row += batch.rows.num_rows
            numbers = pa.array(checked.rows, pa.int64())
            yield self._masked(plan, checked).select(names).append_column(ROW_NUMBER, numbers)

    def _empty_shares(self, plan: LoadPlan) -> dict[str, float]:
        loaded = zip(self.found.columns, self.found.profiles, strict=True)
        shares = [round(profile.empty_share, 4) for column, profile in loaded if not column.dropped]
        return dict(zip(plan.schema.names, shares, strict=True))

    def _as_there(self, plan: LoadPlan, schema: pa.Schema) -> pa.Schema:
        """Return the columns with the types of the existing table; rows whose values do not fit them are bad."""
        there = {one.column: one.there.type for one in plan.misfits}
        narrow = pa.schema([pa.field(one.name, there.get(one.name, one.type)) for one in schema])
        found = inspect(self.looked_at.rows, self.contract, types=self._types(narrow))
        self.looked_at = replace(self.looked_at, inspection=found, read=True)
        if found.bad:
            self._check_bad("; ".join(str(one) for one in plan.misfits))
        return narrow

    def _check_bad(self, advice: str = "") -> None:
        """Raise `RefusedFile` unless the good rows may be loaded without the bad ones."""
        bad = bad_rows(self.found, self.looked_at.rows.unit)
        refusal = self.found.refusal(self.looked_at.rows.unit) + (f"; {advice}" if advice else "")
        if self.rules.on_bad_rows == "refuse":
            raise RefusedFile(refusal)
        if bad.count == bad.rows:
            raise RefusedFile(f"{refusal}; no row is left to be loaded")
        if self.rules.on_bad_rows == "approve" and not self.approved and bad.share > self.rules.max_bad_share:
            shares = f"{bad.share:.1%} of the rows are bad, and the contract allows {self.rules.max_bad_share:.1%}"
            raise NeedsApproval(f"{refusal}; {shares} (max_bad_share): the others need an approval", bad)

    def _check_masked(self, plan: LoadPlan) -> None:
        """Raise `RefusedFile` if the table's column of a masked one is not of text, which masked values are."""
        declared = {one.name: one.declared for one in plan.there}
        loaded = (one for one in self.found.columns if not one.dropped)
        for column, field in zip(loaded, plan.schema, strict=True):
            if column.secret and not pa.types.is_string(field.type):
                there = declared.get(field.name, field.type)
                label = self.looked_at.rows.label
                raise RefusedFile(
                    f"{label}: the column {field.name!r} is text when it is masked, and the table's "
                    f"is {there}: make that text, or load into another table"
                )

    def _types(self, schema: pa.Schema) -> list[pa.DataType | None]:
        """Return, for each column of the file, the type of its values in the table; None for masked columns."""
        types = iter(schema.types)
        found = [None if one.dropped else next(types) for one in self.found.columns]
        return [None if one.secret else type_ for one, type_ in zip(self.found.columns, found, strict=True)]


def lacking_columns(plan: LoadPlan) -> list[str]:
    """Return a note on columns that the table has and the file lacks."""
    lacking = [one.name for one in plan.there if one.name not in plan.schema.names]
    return [f"the file lacks columns that the table has: {lacking}"] if lacking else []


def rejected_place(raw: OpenedFile) -> tuple[Path, Path]:
    """Return the folder and inner path for a file's bad rows: below its watched folder, or beside the file."""
    folder, inner = watched_folder(raw.path)
    return Path(folder), Path(REJECTED_FOLDER, f"{inner.removesuffix(REJECTED_ENDING)}{REJECTED_ENDING}")
