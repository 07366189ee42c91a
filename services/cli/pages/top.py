"""The screen of `sluice top`."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from config.health import is_canary
from services.cli.output import table_of
from services.operations.backlog import age_text
from services.store.events.event_history import EventHistory
from sluice.display import visible

_LEVELS: Final = {"ready": "bold green", "degraded": "bold yellow"}
_REASONS: Final = 3
"""The worst reasons that are shown, in a line each: the rest of the screen is for what moves."""


def screen(found: dict[str, Any], *, width: int) -> RenderableType:
    """Everything that is looked at, the most important first: what has no room is cut off at the bottom."""
    level = str(found["level"])
    head = Text.assemble(
        ("sluice", "bold"),
        f"  {visible(found['project'] or found['home'], max(10, width - 50))}  ",
        (level, _LEVELS.get(level, "bold red")),
        "  q ends it",
    )
    parts = [
        (name, part)
        for role in found["roles"].values()
        for instance in role["instances"]
        for name, part in instance["parts"].items()
    ]
    executors = [part for name, part in parts if name == "executor"]
    sections: list[RenderableType] = [head, Text(_rates(found, executors))]
    reasons = [visible(reason["message"], width - 1) for reason in found["reasons"]]
    more = len(reasons) - _REASONS
    shown = reasons[:_REASONS] + ([f"and {more} more"] if more > 0 else [])
    sections += [Text(reason, style="yellow") for reason in shown]
    sections += [Text("what to do: sluice status", style="yellow")] if reasons else []
    sections += _table("queues", [_place(name, one) for name, one in (found["backlog"] or {}).items()])
    sections += _table("slots", [_executor(part) for part in executors])
    sections += _table("last failures", [_failure(one) for one in found["failures"]])
    sections += _table("roles", [_role(name, role) for name, role in found["roles"].items()])
    named = [(name.removeprefix("files:"), part) for name, part in parts if name.startswith("files:")]
    watches = [(name, part) for name, part in named if not is_canary(name)]
    sections += _table("watched folders", [_watch(name, part) for name, part in watches])
    return Group(*sections)


def _rates(found: dict[str, Any], executors: list[dict[str, Any]]) -> str:
    rate = found["events_per_second"]
    starts = sum(part.get("starts_per_minute") or 0 for part in executors)
    return f"{'-' if rate is None else f'{rate:.1f}'} events a second, {starts} runs started in the last minute"


def _table(title: str, rows: list[dict[str, Any]]) -> list[RenderableType]:
    return [Text(f"\n{title}", style="bold"), table_of(rows, list(rows[0])).renderable()] if rows else []


def _place(name: str, one: dict[str, Any]) -> dict[str, Any]:
    age = one["oldest_seconds"]
    return {"queue": name.replace("_", " "), "waiting": one["count"], "oldest": None if age is None else age_text(age)}


def _executor(part: dict[str, Any]) -> dict[str, Any]:
    return {name: part.get(name) for name in ("name", "slots", "running", "waiting")}


def _role(name: str, role: dict[str, Any]) -> dict[str, Any]:
    return {"role": name, "instances": len(role["instances"]), "ready": role["ready"]}


def _watch(name: str, part: dict[str, Any]) -> dict[str, Any]:
    counts = {field: part.get(field) for field in ("done", "failed")}
    return {
        "watch": name,
        "arrived": part.get("announced"),
        **counts,
        "state": part.get("degraded", "healthy"),
    }


def _failure(found: EventHistory) -> dict[str, Any]:
    event = found.event or {}
    what = event.get("subject") or event.get("type")
    return {"id": found.id, "received": found.received or found.journalled, "what": what, "reason": found.reason}
