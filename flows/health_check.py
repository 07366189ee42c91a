"""Look after all that runs depend on: every quarter of an hour, in development when asked.

A run that finds something wrong fails and says what in its state's message: a Prefect automation can act on that. For
cron and containers, ``python -m flows.health_check '{"most_failures": 3}'`` ends with the exit code 1 then.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from prefect import State, flow, get_client, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed

from sluice import run_name, visible
from tasks.installation import ask_sluice

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


def sluice_parts() -> str:
    """Every role of Sluice is ready, and nothing works only in part: sources, watches, queues."""
    status = ask_sluice("status")
    if status["reasons"]:
        raise RuntimeError("; ".join(one["message"] for one in status["reasons"]))
    queued = sum(status["backlog"][place]["count"] for place in ("journal", "dispatch_queues", "runs_queue"))
    return f"ready; {len(status['watches'])} watches, {queued} events and runs queued"


def dead_letters(most: int) -> str:
    """Not too much of the last hour could not be handled."""
    letters = ask_sluice("dead", "list", "--since", "1h", "--limit", str(most + 1))
    if len(letters) > most:
        raise RuntimeError(f"more than {most} in the last hour, the newest: {letters[0]['reason']}")
    return f"{len(letters)} in the last hour"


def failed_runs(most: int) -> str:
    """Not too many runs of the last hour failed; this flow's own do not count."""
    since = {"after_": str(datetime.now(UTC) - timedelta(hours=1))}
    failed = {"flow_runs": {"state": {"type": {"any_": ["FAILED", "CRASHED"]}}, "end_time": since}}
    own = failed | {"flows": {"name": {"any_": [health_check.name]}}}
    with get_client(sync_client=True) as client:
        every, ours = (client.request("POST", "/flow_runs/count", json=body).json() for body in (failed, own))
    count = every - ours
    if count > most:
        raise RuntimeError(f"{count} in the last hour, at most {most} are expected")
    return f"{count} in the last hour"


@task(cache_policy=NO_CACHE, task_run_name="{what}")
def look(what: str, check: Callable[[], str]) -> dict[str, Any]:
    """One check: never raises, so that the others are made too."""
    started = time.perf_counter()
    try:
        ok, found = True, check()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was found
        ok, found = False, (str(error).splitlines() or [type(error).__name__])[0]
    return {"what": what, "ok": ok, "found": visible(found), "ms": round(1000 * (time.perf_counter() - started))}


@flow(name="health-check", flow_run_name=run_name("health check"))
def health_check(
    least_free_gib: float = 1.0, most_failures: int = 0, most_dead_letters: int = 0, with_sluice: bool = True
) -> State[list[dict[str, Any]]]:
    """Check the Prefect API, the database, the disk, failed runs, Sluice's roles and queues, and dead letters.

    Needs the `sluice` command and its home, unless ``with_sluice`` is false. Fails if anything is not well.
    """
    checks: dict[str, Callable[[], str]] = {
        "Prefect API": prefect_api,
        "database": database,
        "disk": lambda: disk(least_free_gib),
        "failed runs": lambda: failed_runs(most_failures),
    }
    if with_sluice:
        checks |= {"Sluice": sluice_parts, "dead letters": lambda: dead_letters(most_dead_letters)}
    found = [look(what, check) for what, check in checks.items()]
    create_table_artifact(found, key="health", description=f"Environment {os.environ.get('SLUICE_ENV', 'development')}")
    wrong = [f"{result['what']}: {result['found']}" for result in found if not result["ok"]]
    if wrong:
        return Failed(message="; ".join(wrong))
    return Completed(message=f"{len(found)} checks are well", data=found)


def what_is_wrong(arguments: Sequence[str]) -> str | None:
    """Nothing if all is well. An argument holds the flow's parameters as a JSON object."""
    parameters = json.loads(arguments[0]) if arguments else {}
    try:
        state = health_check(**parameters, return_state=True)
    except Exception as error:  # noqa: BLE001 - without Prefect there is no run that could say it
        return f"not well: Prefect API: {type(error).__name__}: {error}"
    return None if state.is_completed() else f"not well: {state.message}"


if __name__ == "__main__":
    sys.exit(what_is_wrong(sys.argv[1:]))  # a text goes to standard error, and the exit code is 1
