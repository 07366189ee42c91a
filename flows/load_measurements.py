"""Load the measurements of many events in one run: one transaction, and one row for each however often it is run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from prefect import State, flow, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from sluice import claim_table, run_name, visible
from tasks.retries import DATABASE

MEASUREMENTS: Final = sa.Table(
    "measurement_events",
    sa.MetaData(),
    sa.Column("load_id", sa.String(100), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sensor", sa.Text),
    sa.Column("value", sa.Double),
    sa.Column("data", sa.Text, nullable=False),
)
"""Every event whole in ``data``; what queries ask for most has columns of its own, empty where an event lacks it."""


@task(**DATABASE, cache_policy=NO_CACHE)
def store(load_id: str, rows: list[dict[str, Any]]) -> None:
    """Put the rows of one load in the place of whatever an earlier attempt left of it."""
    home = Path(os.environ.get("SLUICE_HOME", ".sluice")).resolve()
    home.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        os.environ.get("SLUICE_DATABASE_URL") or f"sqlite:///{home / 'data.db'}?timeout=60", hide_parameters=True
    )
    entries = [{"load_id": load_id, "position": position, **entry(row)} for position, row in enumerate(rows)]
    try:
        with engine.begin() as connection:
            claim_table(connection, MEASUREMENTS.name, flow="load-measurements", outside=False)
            MEASUREMENTS.create(connection, checkfirst=True)
            connection.execute(sa.delete(MEASUREMENTS).where(MEASUREMENTS.c.load_id == load_id))
            if entries:
                connection.execute(sa.insert(MEASUREMENTS), entries)
    finally:
        engine.dispose()


def entry(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of one event's data."""
    sensor, value = row.get("sensor"), row.get("value")
    return {
        "sensor": None if sensor is None else str(sensor),
        "value": float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None,
        "data": json.dumps(row, ensure_ascii=False),
    }


@flow(name="load-measurements", flow_run_name=run_name("measurements"))
def load_measurements(rows: list[dict[str, Any]]) -> State[int]:
    """Load the data of many events, which a rule with ``batch`` collects, and show what came per sensor.

    Needs a database: ``SLUICE_DATABASE_URL``, or SQLite in ``data.db`` of ``SLUICE_HOME``.
    """
    store(str(runtime.flow_run.id), rows)
    per_sensor: dict[str, list[float | None]] = {}
    for row in map(entry, rows):
        per_sensor.setdefault(row["sensor"] or "-", []).append(row["value"])
    table = []
    for sensor, values in sorted(per_sensor.items()):
        numbers = [value for value in values if value is not None]
        table.append(
            {
                "sensor": visible(sensor),
                "events": len(values),
                "least": min(numbers, default=None),
                "most": max(numbers, default=None),
            }
        )
    create_table_artifact(table, key="measurements", description=f"Measurements: {len(rows)}")
    return Completed(message=f"loaded: measurements {len(rows)}, sensors {len(per_sensor)}", data=len(rows))


if __name__ == "__main__":
    load_measurements([{"sensor": "roof", "value": 21.5}])
