"""One `sluice up` for the end-to-end tests, as a process on a home and ports of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.installation import Installation


@pytest.fixture(scope="package")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation with the default configuration."""
    home = tmp_path_factory.mktemp("e2e") / ".sluice"
    with Installation(home) as running:
        yield running


@pytest.fixture
def inbox(installation: Installation) -> Path:
    """Its watched folder."""
    return Path(installation.status["watches"]["inbox"])
