"""Output of `sluice status`: the report of the installation as tables.

The report comes from processes that may be of another version of Sluice, so optional values are read with a default.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from config.health import is_canary
from services.cli.output import clear_screen, say, show_fields, show_rows, show_title, size_text
from services.operations.backlog import age_text

T = TypeVar("T")

_WATCH = ("watch", "arrived", "done", "failed", "waiting", "not_taken", "state", "path")
_EXECUTOR = ("name", "slots", "running", "waiting", "starts_per_minute", "degraded")
"""The columns that fit into 80 characters."""


def show_status(found: dict[str, Any]) -> None:
    """Print the installation, its roles, the reports of their parts, and each reason with its remedy."""
    show_fields({name: found[name] for name in ("ready", "level", "project", "prefect_ui", "redis", "api", "home")})
    _section("roles", [role_row(name, role) for name, role in found["roles"].items()])
    parts = parts_in(found)
    watches = watches_in(parts)
    _section("watched folders", [watch_row(name, part) for name, part in watches], _WATCH)
    disks = {one["path"]: one for name, part in watches for one in part.get("disks", ())}
    _section("disks", [_disk(one) for one in disks.values()])
    _section("executors", [_executor(part) for name, part in parts if name == "executor"], _EXECUTOR)
    routes = sorted({route for _, part in parts for route in part.get("endpoints", ())})
    _section("endpoints of the project", [{"route": route} for route in routes])
    _section("rules that hold events", [held for name, part in parts for held in part.get("held", ())])
    _section("what waits", [waiting_row(place, one) for place, one in (found["backlog"] or {}).items()])
    if found["canary"]:
        _section("canary", [_canary(found["canary"])])
    for reason in found["reasons"]:
        say(f"{reason['level'].replace('-', ' ')}: {reason['message']} [{reason['code']}]\n  do: {reason['remedy']}")


def _section(title: str, rows: list[dict[str, Any]], narrow: tuple[str, ...] = ()) -> None:
    if rows:
        show_title(title)
        show_rows(rows, list(rows[0]), narrow=narrow, as_json=False)


def parts_in(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the reports of the parts of all instances, each with the name of its part."""
    reports = (report for role in found["roles"].values() for report in role["instances"])
    return [(name, part) for report in reports for name, part in report["parts"].items()]


def watches_in(parts: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Return those of the watched folders, by the name of the watch, without the canary's."""
    named = [(name.removeprefix("files:"), part) for name, part in parts if name.startswith("files:")]
    return [(name, part) for name, part in named if not is_canary(name)]


def role_row(name: str, role: dict[str, Any]) -> dict[str, Any]:
    """Return a role as a row of a table."""
    return {
        "role": name,
        "instances": len(role["instances"]),
        "ready": role["ready"],
        "ended_lately": role["restarts"],
    }


def waiting_row(place: str, one: dict[str, Any]) -> dict[str, Any]:
    """Return the backlog of one place as a row of a table."""
    age = one["oldest_seconds"]
    return {"where": place.replace("_", " "), "count": one["count"], "oldest": None if age is None else age_text(age)}


def _canary(flight: dict[str, Any]) -> dict[str, Any]:
    steps = ", ".join(f"{step} {seconds:g} s" for step, seconds in flight["seconds"].items())
    how = "well" if flight["failed"] is None else f"failed at {flight['failed']}"
    return {"ended": f"{age_text(time.time() - flight['at'])} ago", "how": how, "steps": steps}


def watch_row(name: str, part: dict[str, Any]) -> dict[str, Any]:
    """Return a watched folder as a row of a table."""
    return {
        "watch": name,
        "state": part.get("degraded", "healthy"),
        "arrived": part["announced"],
        "in_flight": part["in_flight"],
        "done": part["done"],
        "failed": part["failed"],
        "waiting": part["waiting"]["count"],
        "waiting_for": part["waiting"]["for"],
        "oldest_waiting": part["oldest_waiting"],
        "not_taken": part["uncovered"]["count"],
        "first_not_taken": next(iter(part["uncovered"]["files"]), None),
        "last_full_scan": part["last_full_scan"],
        "path": part["path"],
    }


def _disk(one: dict[str, Any]) -> dict[str, Any]:
    free, size, hours = one["free"], one["size"], one["full_in_hours"]
    return {
        "of": one["path"],
        "free": f"{size_text(free)} of {size_text(size)} ({free * 100 / size:.0f} %)",
        "full_in_hours": hours,
    }


def _executor(part: dict[str, Any]) -> dict[str, Any]:
    wanted = ("name", "slots", "running", "waiting", "starts_per_minute", "start_latency_seconds", "degraded")
    return {name: part.get(name) for name in wanted}


def watched(show: Callable[[], T], *, every_seconds: float) -> T:
    """Call ``show`` every ``every_seconds`` until Ctrl-C; return its last result.

    On a terminal each output begins at the top of the screen.
    """
    clear_screen()
    last = show()
    try:
        while True:
            sys.stdout.flush()
            time.sleep(every_seconds)
            clear_screen()
            last = show()
    except KeyboardInterrupt:
        return last
