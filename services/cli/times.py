"""Times as people write them on the command line."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Final

import typer

_AGO: Final = re.compile(r"(\d+(?:\.\d+)?) *([smhd])")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def moment(text: str) -> float:
    """``90s``, ``15m``, ``2h``, ``7d`` ago or an ISO 8601 time (local without a zone), in seconds since the epoch."""
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return time.time() - float(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is neither an age such as 15m, 2h or 7d nor an ISO 8601 time") from error


def moment_or_none(text: str | None) -> float | None:
    """`moment`, for an option that may be left out."""
    return None if text is None else moment(text)
