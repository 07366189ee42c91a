"""The screen of `sluice top`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from services.cli.output import table_of
from services.cli.pages.status import parts_in, role_row, waiting_row, watch_row, watches_in
from services.store.events.event_history import EventHistory
from sluice.display import visible

_LEVELS: Final = {"ready": "bold green", "degraded": "bold yellow"}
_REASONS: Final = 3
"""Number of reasons shown, the worst first, a line each; the rest of the screen is for numbers that change."""

_ROLE: Final = ("role", "instances", "ready")
_WATCH: Final = ("watch", "arrived", "done", "failed", "state")


def screen(found: dict[str, Any], *, width: int) -> RenderableType:
    """Return the screen, the most important part first, because what does not fit is cut off at the bottom."""
    level = str(found["level"])
    head = Text.assemble(
        ("sluice", "bold"),
        f"  {visible(found['project'] or found['home'], max(10, width - 50))}  ",
        (level, _LEVELS.get(level, "bold red")),
        "  q ends it",
    )
    parts = parts_in(found)
    executors = [part for name, part in parts if name == "executor"]
    sections: list[RenderableType] = [head, Text(_rates(found, executors))]
    reasons = [visible(reason["message"], width - 1) for reason in found["reasons"]]
    more = len(reasons) - _REASONS
    shown = reasons[:_REASONS] + ([f"and {more} more"] if more > 0 else [])
    sections += [Text(reason, style="yellow") for reason in shown]
    sections += [Text("what to do: sluice status", style="yellow")] if reasons else []
    sections += _table("queues", [waiting_row(name, one) for name, one in (found["backlog"] or {}).items()])
    sections += _table("slots", executors, ("name", "slots", "running", "waiting"))
    sections += _table("last failures", [_failure(one) for one in found["failures"]])
    sections += _table("roles", [role_row(name, role) for name, role in found["roles"].items()], _ROLE)
    sections += _table("watched folders", [watch_row(name, part) for name, part in watches_in(parts)], _WATCH)
    return Group(*sections)


def _rates(found: dict[str, Any], executors: list[dict[str, Any]]) -> str:
    rate = found["events_per_second"]
    starts = sum(part.get("starts_per_minute") or 0 for part in executors)
    return f"{'-' if rate is None else f'{rate:.1f}'} events a second, {starts} runs started in the last minute"


def _table(title: str, rows: list[dict[str, Any]], columns: Sequence[str] = ()) -> list[RenderableType]:
    table = [table_of(rows, columns or list(rows[0])).renderable()] if rows else []
    return [Text(f"\n{title}", style="bold"), *table] if table else []


def _failure(found: EventHistory) -> dict[str, Any]:
    event = found.event or {}
    what = event.get("subject") or event.get("type")
    return {"id": found.id, "received": found.received or found.journalled, "what": what, "reason": found.reason}
