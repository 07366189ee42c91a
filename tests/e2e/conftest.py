"""One `sluice up` for the end-to-end tests, as a process on a home and ports of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from demo.every_flow import SECRETS
from demo.installation import Installation


@pytest.fixture(scope="package")
def installation() -> Iterator[Installation]:
    """A running installation with the default configuration, where every user may look, and begun without any umask."""
    with TemporaryDirectory(prefix="sluice-e2e-") as folder:
        Path(folder).chmod(0o755)
        before = os.umask(0)
        try:
            (Path(folder) / "user").mkdir()
            env = {"HOME": str(Path(folder) / "user"), **SECRETS}
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
