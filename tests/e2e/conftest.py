"""One `sluice up` for the end-to-end tests, as a process on a home and ports of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from demo.every_flow import SECRETS
from tests.support.collector import Collector, collecting
from tests.support.installation import Installation


@pytest.fixture(scope="package")
def collector() -> Iterator[Collector]:
    """What the installation sends its traces to."""
    with collecting() as found:
        yield found


@pytest.fixture(scope="package")
def installation(collector: Collector) -> Iterator[Installation]:
    """A running installation with the default configuration, where every user may look, and begun without any umask."""
    with TemporaryDirectory(prefix="sluice-e2e-") as folder:
        Path(folder).chmod(0o755)
        before = os.umask(0)
        try:
            (Path(folder) / "user").mkdir()
            traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address, "OTEL_BSP_SCHEDULE_DELAY": "200"}
            env = {"HOME": str(Path(folder) / "user"), **traces, **SECRETS}
            running = Installation(Path(folder) / ".sluice", env=env)
            running.start()
        finally:
            os.umask(before)
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture
def inbox(installation: Installation) -> Path:
    """Its watched folder."""
    return Path(installation.status["watches"]["inbox"])
