"""Finds out what loading a file would do, without loading anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from sluice.budgets import Budget
from sluice.loading.contracts.contract import Contract
from sluice.loading.drafting import draft_contract
from sluice.loading.file_rows import file_rows
from sluice.loading.load import BUDGET, LoadRequest, destination, display, look_at, opened
from sluice.loading.reading.source import members
from sluice.loading.reporting.report import BadRows, bad_rows, columns_told, many
from sluice.loading.targets import LoadPlan, open_target
from sluice.loading.transfer import lacking_columns


@dataclass(frozen=True, slots=True)
class Trial:
    """What would become of a file."""

    file: str
    table: str
    mode: str
    rows: int
    """Number of rows that would be loaded."""
    bad: BadRows
    outcome: str
    """The outcome in a sentence."""
    would_load: bool
    columns: list[dict[str, Any]] = field(default_factory=list)
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def try_file(
    path: Path,
    database_url: str | None,
    *,
    table: str | None = None,
    contract: Contract | None = None,
    budget: Budget = BUDGET,
    flow: str = "ingest-file",
) -> Trial:
    """Read the file as `load_file` does, and compare it with its table if there is a database; nothing is written.

    Raises `RefusedFile`, `sluice.OverBudget` and `TargetFailed`.
    """
    request = LoadRequest(table=table, contract=contract, budget=budget, flow=flow)
    with opened(path) as raw:
        to = destination(raw, request)
        looked_at = look_at(raw, request)
        plan: LoadPlan | None = None
        if database_url is not None and _is_there(database_url):
            with open_target(database_url) as target:
                plan = target.plan(to, looked_at.schema)
        found = looked_at.inspection
        bad = bad_rows(found, looked_at.rows.unit)
        good = bad.rows - bad.count
        outcome, would_load = _outcome(bad, request, to.full_name, plan)
        return Trial(
            display(path.name),
            to.full_name,
            to.mode,
            good if would_load else 0,
            bad,
            outcome,
            would_load,
            columns_told(found, looked_at.schema.names, plan.schema if plan is not None else None),
            looked_at.rows.evidence,
            [*looked_at.rows.notes, *_within_files(request), *(lacking_columns(plan) if plan is not None else [])],
        )


def draft_for(path: Path, said: Contract, budget: Budget = BUDGET) -> dict[str, Any]:
    """Return a draft contract for files like this one; ``said`` is what is known of it already.

    Raises `RefusedFile` and `sluice.OverBudget`.
    """
    with opened(path) as raw:
        rows = file_rows(list(members(raw, path.name, budget)), said, display(path.name))
        return draft_contract(rows, path.name, said)


def _outcome(bad: BadRows, request: LoadRequest, table: str, plan: LoadPlan | None) -> tuple[str, bool]:
    rules = request.rules
    good = bad.rows - bad.count
    if plan is not None and plan.misfits and rules.wider_types == "refuse":
        return "refused: " + "; ".join(str(one) for one in plan.misfits), False
    if bad.count and (rules.on_bad_rows == "refuse" or not good):
        return f"refused: {_of(bad)} bad", False
    how = {"append": "loaded into", "replace": "put in the place of those in", "upsert": "merged into"}[rules.mode]
    there = "" if plan is None else " (which is there)" if plan.there else " (which is made)"
    said = f"{many(good, 'row', are=True)} {how} the table {table}{there}"
    if plan is not None and plan.added:
        said += f", which gets the columns {list(plan.added)}"
    if plan is not None and plan.misfits:
        said += f", in which columns are widened: {'; '.join(str(one) for one in plan.misfits)}"
    if not bad.count:
        return said, True
    if rules.on_bad_rows == "approve" and bad.share > rules.max_bad_share:
        return f"waits for an approval, because {_of(bad)} bad; with it, {said}", True
    return f"{said}, and {many(bad.count, 'bad row', are=True)} put aside", True


def _within_files(request: LoadRequest) -> list[str]:
    """Return notes on what the table may hold although the contract seems to forbid it."""
    contract = request.contract
    schema = contract.file_schema if contract is not None else None
    if schema is None or request.rules.mode == "replace":
        return []
    names = [one.name for one in schema.fields if one.constraints.unique and (one.name,) != schema.key]
    if not names:
        return []
    return [f"`unique` holds within a file: {names} may repeat values of other files; `primaryKey` holds for the table"]


def _of(bad: BadRows) -> str:
    return f"{bad.count} of {many(bad.rows, 'row')} {'is' if bad.count == 1 else 'are'}"


def _is_there(url: str) -> bool:
    """Return whether there is a database to read; a file is not created for that."""
    try:
        parsed = sa.make_url(url)
    except SQLAlchemyError:
        return True  # `open_target` says what is wrong
    in_file = parsed.get_backend_name() in {"sqlite", "duckdb"}
    return not in_file or Path(parsed.database or "").exists()
