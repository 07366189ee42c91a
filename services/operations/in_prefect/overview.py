"""The overview as a page in markdown: problems, backlog, runs that wait for an answer, and throughput."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from config.health import is_canary
from services.home.prefect_pages import run_page
from services.operations.backlog import age_text
from services.operations.readiness import Readiness
from services.prefect_api.run_view import RunView
from sluice.display import in_markdown

_BARS: Final = "▁▂▃▄▅▆▇█"
_WATCH: Final = "files:"
_PLACES: Final = {
    "journal": "events for the rules",
    "dispatch_queues": "runs to be created",
    "runs_queue": "runs for a slot",
    "waiting_runs": "runs for an answer",
    "resume_queue": "signals for a resumer",
    "buffered_signals": "signals that came early",
    "dead_letters": "dead letters",
}


@dataclass(frozen=True, slots=True)
class Minute:
    """The throughput of one minute."""

    events: float = 0.0
    runs: float = 0.0
    latency_seconds: float = 0.0
    """From the journal to the flow's beginning, summed over ``started`` runs."""
    started: float = 0.0


@dataclass(frozen=True, slots=True)
class Overview:
    """The data of the page."""

    project: str | None
    ui: str
    readiness: Readiness
    waiting: Sequence[RunView] = ()
    """Runs that wait, the longest first."""
    letters: Mapping[str, tuple[int, datetime]] = field(default_factory=dict)
    """Number of dead letters by code, and when the last of each failed."""
    minutes: Sequence[Minute] = ()
    """The last ones, the oldest first."""


def head(overview: Overview, *, now: datetime) -> str:
    """The first lines of the page, with the time ``now``."""
    title = f"Sluice: {in_markdown(overview.project)}" if overview.project else "Sluice"
    return f"## {title}\n\n**{overview.readiness.level.replace('-', ' ')}** at {now:%Y-%m-%d %H:%M} UTC\n\n"


def body(overview: Overview, *, now: datetime) -> str:
    """The rest, with ages in whole minutes, so that it changes only when there is something new."""
    readiness = overview.readiness
    parts = [
        _wrong(readiness),
        _throughput(overview.minutes),
        _backlog(readiness),
        _waiting(overview, now),
        _watches(readiness),
        _letters(overview.letters, now),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _age(seconds: float) -> str:
    return age_text(seconds // 60 * 60) if seconds >= 120 else "< 2 min"  # noqa: PLR2004 - the text says it


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def _wrong(readiness: Readiness) -> str:
    rows = [(in_markdown(one.message), in_markdown(one.remedy)) for one in readiness.reasons]
    return _table(("what is wrong", "what to do"), rows) if rows else ""


def bars(values: Sequence[float]) -> str:
    """Return the values as a chart of one line; a blank stands for zero."""
    most = max(values, default=0.0)
    return "".join(
        " " if value <= 0 else _BARS[min(int(value / most * len(_BARS)), len(_BARS) - 1)] for value in values
    )


def _throughput(minutes: Sequence[Minute]) -> str:
    """Return the section on the last minutes: events, runs, and the time from an event to its flow."""
    if not minutes:
        return ""
    latencies = [minute.latency_seconds / minute.started if minute.started else 0.0 for minute in minutes]
    started = sum(minute.started for minute in minutes)
    mean = f"{sum(minute.latency_seconds for minute in minutes) / started:.2f} s on average" if started else "-"
    shown = [
        ("events", f"{sum(minute.events for minute in minutes):.0f}", bars([minute.events for minute in minutes])),
        ("runs", f"{sum(minute.runs for minute in minutes):.0f}", bars([minute.runs for minute in minutes])),
        ("event to first line", mean, bars(latencies)),
    ]
    rows = [(what, number, f"`{chart or ' '}`") for what, number, chart in shown]
    span = f"{len(minutes)} minutes" if len(minutes) > 1 else "minute"
    return f"### The last {span}\n\n" + _table(("", "in all", "by the minute"), rows)


def _backlog(readiness: Readiness) -> str:
    if readiness.backlog is None:
        return ""
    places = readiness.backlog.places()
    rows = [
        (_PLACES.get(name, name), str(place.count), _age(place.oldest_seconds or 0.0) if place.count else "-")
        for name, place in places.items()
    ]
    return "### What waits\n\n" + _table(("for", "how many", "the oldest for"), rows)


def _waiting(overview: Overview, now: datetime) -> str:
    rows = [
        (
            f"[{in_markdown(run.name)}]({run_page(overview.ui, run.run_id)})",
            in_markdown(", ".join(run.keys) or "-"),
            _age((now - run.since).total_seconds()),
        )
        for run in overview.waiting
    ]
    return "### Runs that wait for an answer\n\n" + _table(("run", "key", "for"), rows) if rows else ""


def _watches(readiness: Readiness) -> str:
    """Return the section on the watched folders, or '' if there are none; the canary's is left out."""
    found: dict[str, Mapping[str, Any]] = {}
    for role in readiness.roles.values():
        for report in role.instances:
            parts = report["parts"].items()
            found |= {name.removeprefix(_WATCH): part for name, part in parts if name.startswith(_WATCH)}
    rows = [
        (
            in_markdown(name),
            in_markdown(part["path"]),
            in_markdown(part.get("degraded") or "hears"),
            *(str(part.get(number, "-")) for number in ("in_flight", "done", "failed")),
        )
        for name, part in sorted(found.items())
        if not is_canary(name)
    ]
    head = ("watch", "folder", "state", "in hand", "done", "failed")
    return "### Watched folders\n\n" + _table(head, rows) if rows else ""


def _letters(letters: Mapping[str, tuple[int, datetime]], now: datetime) -> str:
    rows = [
        (in_markdown(code), str(count), _age((now - last).total_seconds()), f"`sluice dead list --code {code}`")
        for code, (count, last) in sorted(letters.items(), key=lambda one: -one[1][0])
    ]
    return (
        "### Dead letters by reason\n\n" + _table(("reason", "how many", "the last one before", "look"), rows)
        if rows
        else ""
    )
