"""The version of this Sluice."""

from __future__ import annotations

import platform
import tomllib
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from config.settings import CHECKOUT

DISTRIBUTION: Final = "sluice-events"
_ABOUT: Final = CHECKOUT / "pyproject.toml"


def installed_version() -> str:
    """The version with those of Python and Prefect, on one line."""
    where = f" (the checkout {CHECKOUT})" if _ABOUT.is_file() else ""
    return f"sluice {own_version()}{where}, Python {platform.python_version()}, Prefect {_version('prefect')}"


def own_version() -> str:
    """That of the checkout, or of the installed distribution."""
    if _ABOUT.is_file():
        return str(tomllib.loads(_ABOUT.read_text(encoding="utf-8"))["project"]["version"])
    return _version(DISTRIBUTION)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "of unknown version"
