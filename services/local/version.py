"""Which Sluice this is."""

from __future__ import annotations

import platform
import tomllib
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from config.settings import CHECKOUT

DISTRIBUTION: Final = "sluice-events"


def installed_version() -> str:
    """The version with those of Python and Prefect, on one line."""
    about = CHECKOUT / "pyproject.toml"
    if about.is_file():
        own = f"{tomllib.loads(about.read_text(encoding='utf-8'))['project']['version']} (the checkout {CHECKOUT})"
    else:
        own = _version(DISTRIBUTION)
    return f"sluice {own}, Python {platform.python_version()}, Prefect {_version('prefect')}"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "of unknown version"
