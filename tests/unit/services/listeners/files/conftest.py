"""A watched folder of the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.store.connection import AsyncRedis
from tests.unit.services.listeners.files.watched import Watched


@pytest.fixture
def watched(tmp_path: Path, redis: AsyncRedis) -> Iterator[Any]:
    """Makes the watch of ``inbox`` below the test's folder, with what the project file says of it."""
    made: list[Watched] = []

    def make(**options: Any) -> Watched:
        (tmp_path / "inbox").mkdir(exist_ok=True)
        made.append(Watched(tmp_path / "inbox", redis, options=options))
        return made[-1]

    yield make
    for one in made:
        one.close()
