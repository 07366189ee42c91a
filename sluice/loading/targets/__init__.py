"""Targets: where the rows of a file go."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol, Self

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from sluice.loading.targets.plan import Destination, FileVersion, LoadPlan, PastLoad
from sluice.loading.targets.writing import TableLoad

__all__ = ["Destination", "FileVersion", "LoadPlan", "PastLoad", "TableLoad", "Target", "open_target"]


class Target(Protocol):
    """The tables of one database, or of one folder of files. `DatabaseTarget` says what each method guarantees."""

    holds_keys: bool
    """Whether the tables themselves refuse a second row with the same primary key."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def plan(self, to: Destination, found: pa.Schema) -> LoadPlan: ...

    def is_loaded(self, to: Destination, file: FileVersion) -> bool: ...

    def history(self, table: str, count: int) -> list[PastLoad]: ...

    def load(
        self, to: Destination, plan: LoadPlan, file: FileVersion, *, unit: str = "line"
    ) -> AbstractContextManager[TableLoad]: ...


def open_target(url: str) -> Target:
    """Return the target that ``url`` names; use it in a ``with`` block.

    ``sqlite:///FILE``, ``postgresql://…``, ``parquet:///FOLDER``, or any other URL of SQLAlchemy whose driver is
    installed. Raises `ValueError` for a URL that cannot be used; the message contains no password.
    """
    try:
        parsed = sa.make_url(url)
        return _opened(parsed)
    except (SQLAlchemyError, ImportError) as error:
        raise ValueError(f"the database URL (SLUICE_DATABASE_URL) cannot be used: {error}") from error


def _opened(url: sa.URL) -> Target:
    match url.get_backend_name():
        case "sqlite":
            from sluice.loading.targets.sqlite import SqliteTarget

            return SqliteTarget(url)
        case "postgresql":
            from sluice.loading.targets.postgresql import PostgresTarget

            return PostgresTarget(url)
        case "mysql" | "mariadb":
            from sluice.loading.targets.mysql import MysqlTarget

            return MysqlTarget(url)
        case "duckdb":
            from sluice.loading.targets.duckdb import DuckdbTarget

            return DuckdbTarget(url)
        case "parquet":
            from sluice.loading.targets.parquet_dataset import ParquetTarget

            return ParquetTarget(url)
        case _:
            from sluice.loading.targets.database import DatabaseTarget, engine_for

            return DatabaseTarget(engine_for(url))
