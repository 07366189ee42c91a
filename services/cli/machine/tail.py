"""`sluice events tail`: shows the decisions of the rules as they are made."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli.output import say, show_json_line, show_line
from services.cli.session import demand_rule, open_session
from services.cli.terminal.options import AsJson, Since
from services.cli.terminal.times import in_full
from services.store.events.event_history import EventHistory
from services.store.events.history import Query
from services.store.events.tail import Tail

Filter = str | None


async def tail(
    *,
    type_: Annotated[Filter, typer.Option("--type", help="Only this type; a glob.")] = None,
    source: Annotated[Filter, typer.Option("--source", help="Only from this source; a glob.")] = None,
    subject: Annotated[Filter, typer.Option("--subject", help="Only with this subject; a glob.")] = None,
    rule: Annotated[Filter, typer.Option(help="Only events that this rule matched.")] = None,
    unmatched: Annotated[bool, typer.Option("--unmatched", help="Only events that no rule matched.")] = False,
    since: Since = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="End after this number of events.")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow the decisions until Ctrl-C: a line for each event as soon as the rules were evaluated on it.

    With --since, decisions since that time come first.
    """
    query = Query(type=type_, source=source, subject=subject, rule=rule, unmatched=unmatched)
    begin = since.timestamp() if since else None
    async with open_session() as session:
        await demand_rule(session, rule)
        shown = 0
        async for found in Tail(session.redis, session.history).follow(query, since=begin, on_backlog=_say_backlog):
            if as_json:
                show_json_line(found.row)
            else:
                show_line(_line(found))
            shown += 1
            if shown == limit:
                return


def _say_backlog(count: int) -> None:
    say(f"{count} events have waited for the router for some seconds: `sluice status` says whether one runs")


def _line(found: EventHistory) -> str:
    event: dict[str, Any] = found.event or {}
    at = found.routed or found.journalled
    decision = ", ".join(found.matched) if found.matched else found.outcome
    words = [in_full(at) if at else "-", str(event.get("type")), found.id, str(event.get("subject") or "-")]
    reason = f" ({found.reason})" if found.reason else ""
    return f"{'  '.join(words)}  -> {decision}{reason}"
