"""The versions of Prefect that Sluice is tested with, client and server in any mix; warnings about others."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from typing import Final

_FIRST: Final = (3, 8, 8)
_BEHIND: Final = (3, 10)
TESTED: Final = "3.8.8 to 3.9.x"

_NUMBERS: Final = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


def untested(found: str) -> bool:
    """Whether Sluice is not tested with this version, or it is no version at all."""
    numbers = _NUMBERS.match(found)
    return numbers is None or not _FIRST <= tuple(int(number or 0) for number in numbers.groups()) < _BEHIND


def untested_versions(server: str | None, *, url: str = "") -> list[str]:
    """Return a sentence about the Prefect installed here, and one about the ``server``'s, if untested."""
    sentences = []
    try:
        client = version("prefect")
    except PackageNotFoundError:
        client = ""
    if client and untested(client):
        sentences.append(
            f"Prefect {client} is installed here, and Sluice is tested with {TESTED}: install one of these "
            "(pip install 'prefect>=3.8.8,<3.10')"
        )
    if server is not None and untested(server):
        sentences.append(
            f"the Prefect server{f' at {url}' if url else ''} has the version {server}, and Sluice is tested with "
            f"{TESTED}: runs may not be resumed or ended as they should; use a server of one of these"
        )
    return sentences
