"""Another version of Sluice: this checkout once more, under the next number."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
_NEEDED = ("config", "events", "flows", "services", "sluice", "tasks")
_VERSION = re.compile(r'^version = "(\d+)\.(\d+)\.(\d+)"', re.MULTILINE)


def next_version(folder: Path) -> Path:
    """Make it in ``folder``, which it returns; blocks."""
    for name in _NEEDED:
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    about = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    bumped = _VERSION.sub(lambda found: f'version = "{found[1]}.{int(found[2]) + 1}.0"', about)
    assert bumped != about
    (folder / "pyproject.toml").write_text(bumped, encoding="utf-8")
    return folder
