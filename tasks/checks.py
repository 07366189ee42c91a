"""Checks of content that any flow can make before it goes on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from sluice import visible

MOST_SHOWN = 5


@task(cache_policy=NO_CACHE)
def check_rows(
    rows: Sequence[dict[str, Any]], *, least: int = 1, columns: Collection[str] = (), unique: str | None = None
) -> None:
    """Refuse rows that are too few, lack a value in one of ``columns``, or share a value of ``unique``.

    Raises `ValueError` with everything that is wrong, the first rows by their numbers (from 1).
    """
    problems = [] if len(rows) >= least else [f"there are {len(rows)} rows, at least {least} are wanted"]
    for column in columns:
        empty = [number for number, row in enumerate(rows, start=1) if row.get(column) in {None, ""}]
        if empty:
            problems.append(f"{column} is empty in {_rows(empty)}")
    if unique is not None:
        seen: dict[Any, int] = {}
        again = [number for number, row in enumerate(rows, 1) if seen.setdefault(row.get(unique), number) != number]
        if again:
            problems.append(f"{unique} repeats a value in {_rows(again)}")
    if problems:
        raise ValueError(visible("; ".join(problems)))


def _rows(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:MOST_SHOWN]))
    more = f" and {len(numbers) - MOST_SHOWN} more" if len(numbers) > MOST_SHOWN else ""
    return f"row{'s'[: len(numbers) - 1]} {shown}{more}"
