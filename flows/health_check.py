"""Look after the Prefect API, the database and the disk: every quarter of an hour, in development when asked.

A run that finds something wrong fails and says what in its state's message: a Prefect automation can act on that.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from prefect import State, flow, get_client, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed

from sluice import visible

DEPLOYMENT: Final = {"cron": "*/15 * * * *", "environments": {"development": {"cron": None}}}


def prefect_api() -> str:
    """The Prefect API answers."""
    with get_client(sync_client=True) as client:
        trouble = client.api_healthcheck()
        if trouble is not None:
            raise RuntimeError(str(trouble))
        return f"answers, version {client.api_version()}"


def database() -> str:
    """The database of the flows answers a query."""
    home = Path(os.environ.get("SLUICE_HOME", ".sluice")).resolve()
    url = os.environ.get("SLUICE_DATABASE_URL") or f"sqlite:///{home / 'data.db'}?timeout=10"
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
            return f"answers ({engine.dialect.name})"
    finally:
        engine.dispose()


def disk(least_free_gib: float) -> str:
    """The disk of the home has room."""
    path = Path(os.environ.get("SLUICE_HOME", ".sluice")).resolve()
    free = shutil.disk_usage(next(parent for parent in (path, *path.parents) if parent.exists())).free / 1024**3
    if free < least_free_gib:
        raise RuntimeError(f"{free:.1f} GiB free, at least {least_free_gib:g} are wanted")
    return f"{free:.1f} GiB free"


@task(cache_policy=NO_CACHE, task_run_name="{what}")
def look(what: str, check: Callable[[], str]) -> dict[str, Any]:
    """One check: never raises, so that the others are made too."""
    started = time.perf_counter()
    try:
        ok, found = True, check()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was found
        ok, found = False, (str(error).splitlines() or [type(error).__name__])[0]
    return {"what": what, "ok": ok, "found": visible(found), "ms": round(1000 * (time.perf_counter() - started))}


@flow(name="health-check")
def health_check(least_free_gib: float = 1.0) -> State[list[dict[str, Any]]]:
    """Check everything that runs depend on; fails if anything is not well."""
    checks: dict[str, Callable[[], str]] = {
        "Prefect API": prefect_api,
        "database": database,
        "disk": lambda: disk(least_free_gib),
    }
    found = [look(what, check) for what, check in checks.items()]
    create_table_artifact(found, key="health", description=f"Environment {os.environ.get('SLUICE_ENV', 'development')}")
    wrong = [f"{result['what']}: {result['found']}" for result in found if not result["ok"]]
    if wrong:
        return Failed(message="; ".join(wrong))
    return Completed(message=f"{len(found)} checks are well", data=found)


if __name__ == "__main__":
    health_check()
