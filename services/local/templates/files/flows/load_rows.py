"""Load the rows of one file into a database, all of them or none."""

import os
from pathlib import Path

from prefect import flow

from sluice import run_name
from sluice.loading import load_file


@flow(name="load-rows", flow_run_name=run_name("load {path}"))
def load_rows(path: str) -> str:
    """Load the file into a table that is named after it."""
    report = load_file(path, database_url(), flow="load-rows")
    return report.message


def database_url() -> str:
    """The database of SLUICE_DATABASE_URL, else a file of SQLite in the project's .sluice/."""
    home = Path(os.environ.get("SLUICE_HOME", ".sluice"))
    return os.environ.get("SLUICE_DATABASE_URL") or f"sqlite:///{home / 'data.db'}"
