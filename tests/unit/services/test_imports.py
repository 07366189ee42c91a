"""What is not imported, because it would cost time or memory that nobody has anything of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]

HEAVY = ("duckdb", "fastapi", "opentelemetry.sdk", "pandas", "prefect", "pyarrow", "rq.worker", "sqlalchemy", "uvicorn")


def imported(code: str) -> set[str]:
    """The modules that a new interpreter has imported after ``code``."""
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(told.stdout))


@pytest.mark.parametrize(
    "module", ["services.store.connection", "services.job_queues.queues", "services.executor.executor", "services.app"]
)
def test_redis_brings_no_metrics_of_opentelemetry(module: str) -> None:
    found = imported(f"import {module}")
    assert "redis.asyncio" in found
    assert "opentelemetry.sdk.metrics" not in found


def test_metrics_of_opentelemetry_can_be_imported_afterwards() -> None:
    assert "opentelemetry.sdk.metrics" in imported("import services.store.connection, opentelemetry.sdk.metrics")


def test_status_imports_nothing_heavy() -> None:
    """It is to answer in a third of a second, most of which is imports."""
    code = "import services.cli.pages.status, services.operations.status, services.cli"
    assert not imported(code) & set(HEAVY)
