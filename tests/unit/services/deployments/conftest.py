"""Files of flows in a project of the test's own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from services.deployments.declared import Declarations, read_declarations


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    (tmp_path / "flows").mkdir()

    def write(name: str, source: str) -> Path:
        path = tmp_path / "flows" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path

    return write


@pytest.fixture
def read(tmp_path: Path) -> Callable[[], Declarations]:
    return lambda environment="development": read_declarations(tmp_path, environment=environment)
