"""Times on the command line, as people write them and as they read them."""

from __future__ import annotations

import re
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

_AGO: Final = re.compile(r"(\d+(?:\.\d+)?) *([smhd])")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SHOWN: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_LONG_AGO: Final = 30 * 86_400
"""Seconds; older times are shown as a date."""

_in_utc: Final[ContextVar[bool]] = ContextVar("times are shown in UTC", default=False)

Utc = Annotated[bool, typer.Option("--utc", help="Show times in UTC rather than how long ago.")]


def show_times(*, utc: bool) -> None:
    """Set how this command shows times: in UTC, or as ages in listings and in local time elsewhere."""
    _in_utc.set(utc)


def moment(text: str) -> datetime:
    """Return the time of an age (``90s``, ``15m``, ``2h``, ``7d``) or of an ISO 8601 time, local without a zone.

    Raises `typer.BadParameter` for anything else.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago:
            return datetime.now(UTC) - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is neither an age such as 15m, 2h or 7d nor an ISO 8601 time") from error


def seconds(text: str) -> float:
    """Return the seconds of a duration such as ``90s``, ``15m``, ``2h`` or ``7d``.

    Raises `typer.BadParameter` for anything else, and for zero.
    """
    found = _AGO.fullmatch(text.strip())
    if found is None or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is no duration such as 15m, 2h or 7d")
    return float(found[1]) * _UNITS[found[2]]


def refuse_empty(since: datetime | None, until: datetime | None) -> None:
    """Raise `typer.BadParameter` for a period of no time, or that ends before it begins."""
    if since is not None and until is not None and since >= until:
        raise typer.BadParameter(f"--since {in_full(since)} is not before --until {in_full(until)}")


def age(at: datetime, now: datetime | None = None) -> str:
    """Return how long ago ``at`` was, or how long it is until then, in one unit; a date beyond a month."""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    if abs(seconds) >= _LONG_AGO:
        return at.astimezone().strftime("%Y-%m-%d")
    found = next(((int(abs(seconds) // size), unit) for size, unit in _SHOWN if abs(seconds) >= size), None)
    if found is None:
        return "now"
    said = f"{found[0]} {found[1]}"
    return f"{said} ago" if seconds > 0 else f"in {said}"


def in_listing(at: datetime) -> str:
    """Return a time for a cell of a table."""
    return _utc(at) if _in_utc.get() else age(at)


def in_full(at: datetime) -> str:
    """Return a time in this machine's zone, to the second."""
    return _utc(at) if _in_utc.get() else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def in_field(at: datetime) -> str:
    """Return a time for a field: when it was, and how long ago."""
    return _utc(at) if _in_utc.get() else f"{in_full(at)} ({age(at)})"


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
