"""A database that is not there yet, and files to be loaded into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "home" / "data.db"


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)  # another file, not one that was written on
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def orders(written: Any) -> Path:
    path: Path = written("orders.csv", "id,code,total,note\n1,007,1.5,\n2,012,2,x\n")
    return path
