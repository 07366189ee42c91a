"""`sluice events tail`: what the rules decide, as they decide it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli.commands import run_command
from services.cli.output import say, show_json_line, show_line
from services.cli.session import demand_rule, open_session
from services.cli.terminal.times import in_full, moment_or_none, show_times
from services.store.events.event_history import EventHistory
from services.store.events.history import History, Query
from services.store.events.tail import Tail

Filter = str | None


def tail(
    *,
    type_: Annotated[Filter, typer.Option("--type", help="Only this type; a glob.")] = None,
    source: Annotated[Filter, typer.Option("--source", help="Only from this source; a glob.")] = None,
    subject: Annotated[Filter, typer.Option("--subject", help="Only with this subject; a glob.")] = None,
    rule: Annotated[Filter, typer.Option(help="Only events that this rule matched.")] = None,
    unmatched: Annotated[bool, typer.Option("--unmatched", help="Only events that no rule matched.")] = False,
    since: Annotated[Filter, typer.Option("--since", help="Begin with those of an age (15m, 2h) or a time.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="End after so many.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    utc: Annotated[bool, typer.Option("--utc", help="Show times in UTC.")] = False,
) -> None:
    """Follow the decisions: a line for each event as soon as the rules have judged it, until Ctrl-C."""
    show_times(utc=utc)
    begin = moment_or_none(since)
    query = Query(type=type_, source=source, subject=subject, rule=rule, unmatched=unmatched)

    async def work() -> None:
        async with open_session() as session:
            await demand_rule(session, rule)
            shown = 0
            history = History(session.redis, session.settings.history)
            async for found in Tail(session.redis, history).follow(query, since=begin, on_backlog=_say_backlog):
                if as_json:
                    show_json_line(found.row)
                else:
                    show_line(_line(found))
                shown += 1
                if shown == limit:
                    return

    run_command(work())


def _say_backlog(count: int) -> None:
    say(f"{count} events have waited for the router for some seconds: `sluice status` tells whether one runs")


def _line(found: EventHistory) -> str:
    event: dict[str, Any] = found.event or {}
    at = found.routed or found.journalled
    decision = ", ".join(found.matched) if found.matched else found.outcome
    words = [in_full(at) if at else "-", str(event.get("type")), found.id, str(event.get("subject") or "-")]
    reason = f" ({found.reason})" if found.reason else ""
    return f"{'  '.join(words)}  -> {decision}{reason}"
