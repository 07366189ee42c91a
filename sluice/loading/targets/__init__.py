"""Where the rows of a file go."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from sluice.loading.targets.database import DatabaseTarget
from sluice.loading.targets.plan import Destination, FileVersion, LoadPlan
from sluice.loading.targets.writing import TableLoad

__all__ = ["DatabaseTarget", "Destination", "FileVersion", "LoadPlan", "TableLoad", "open_target"]


def open_target(url: str) -> DatabaseTarget:
    """The target that ``url`` names; use it in a ``with`` block.

    ``sqlite:///FILE``, ``postgresql://…``, or any other URL of SQLAlchemy whose driver is installed. Raises
    `ValueError` for a URL that cannot be used; the message has no password in it.
    """
    try:
        parsed = sa.make_url(url)
        return _opened(parsed)
    except (SQLAlchemyError, ImportError) as error:
        raise ValueError(f"the database URL (SLUICE_DATABASE_URL) cannot be used: {error}") from error


def _opened(url: sa.URL) -> DatabaseTarget:
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
        case _:
            return DatabaseTarget(sa.create_engine(url, poolclass=sa.NullPool, hide_parameters=True))
