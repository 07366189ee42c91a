"""Output of `sluice events show`: one event with its whole history."""

from __future__ import annotations

from collections.abc import Mapping

from services.cli.output import show_fields, show_line, show_title
from services.cli.terminal.times import in_full
from services.store.events.event_history import EventHistory


def show_event(found: EventHistory, waits_for: list[str], urls: Mapping[str, str]) -> None:
    """Print the history; ``waits_for`` names its open effects, ``urls`` has the page of each of its runs in Prefect."""
    event = found.event or {}
    show_fields(
        {
            "id": found.id,
            "type": event.get("type"),
            "source": found.source,
            "subject": event.get("subject"),
            "time": event.get("time"),
            "listener": found.listener or None,
            "received": found.received,
            "journalled": found.journalled,
            "routed": found.routed,
            "rules": found.rules_version,
            "outcome": found.outcome,
            "reason": found.reason or None,
            "waits_for": waits_for or None,
            "data": event.get("data"),
        }
    )
    _show_effects(found, urls)
    _show_happenings(found)


def _show_effects(found: EventHistory, urls: Mapping[str, str]) -> None:
    show_title("verdicts")
    for verdict in found.verdicts:
        said = "matched" if verdict.matched else f"not matched: {verdict.failed}"
        show_line(f"  {verdict.rule}: {said}" + (f": {verdict.detail}" if verdict.detail else ""))
    for run in found.runs:
        show_title(f"run {run.run_id} of {run.deployment} (rule {run.rule})")
        show_line(f"  {urls[run.run_id]}")
        show_line(f"  created {in_full(run.created)}")
        for state in run.states:
            show_line(f"  {state.name} {in_full(state.at)}" + (f": {state.message}" if state.message else ""))


def _show_happenings(found: EventHistory) -> None:
    for title, happenings in (("signals", found.signals), ("dead letters", found.dead), ("notes", found.notes)):
        if happenings:
            show_title(title)
        for one in happenings:
            parts = [in_full(one.at), one.id, one.rule and f"rule {one.rule}", one.code, one.text]
            show_line("  " + "  ".join(part for part in parts if part))
    if found.changes:
        show_title("changed before a replay")
        for change in found.changes:
            whose = change.by or "an unnamed person"
            show_line(f"  {in_full(change.at)}  {change.path}: {change.before} -> {change.after}, by {whose}")
    if found.timings_ms:
        show_title("timings (ms)")
        for step, milliseconds in found.timings_ms.items():
            show_line(f"  {step}: {milliseconds}")
