"""`sluice events`: publishes events, shows what became of them, and replays them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from config.settings import load_settings
from events.errors import NotFound, Refused
from events.event import parse_event
from events.identity import id_of
from services.cli.commands import Commands
from services.cli.machine.tail import tail
from services.cli.output import say, show_json, show_line, show_progress, show_rows
from services.cli.pages.event import show_event
from services.cli.session import Session, demand_rule, login, open_session
from services.cli.terminal.options import AsJson, DryRun, Limit, Rate, Type
from services.home.prefect_pages import run_page
from services.listings.filters import EventAttributes, EventFilter
from services.store.events.history import Query
from services.store.events.journal import Journal

if TYPE_CHECKING:
    from services.routing.replay import Replay, Replayed
    from services.routing.retries import Retry

app = Commands(help="Publish events, see what became of them, replay them.", no_args_is_help=True)
app.command(shows_times=True)(tail)


@dataclass(frozen=True, kw_only=True)
class ReplayedEvents(EventAttributes):
    """Events by name, or by a filter; not by both.

    ``--source`` may stand beside names, because two sources may use the same id.
    """

    names: Annotated[
        list[str] | None, typer.Argument(help="Events, named as for `show`; or choose them by options.")
    ] = None
    matched_by: Annotated[str | None, typer.Option(help="Only events that this rule matched.")] = None

    def __post_init__(self) -> None:
        alone = {Query(), Query(source=self.source)} if self.names else {Query()}
        if (self.by_filter in alone) != bool(self.names):
            raise typer.BadParameter(
                "name either ids of events (with --source where an id has several), or at least one option that chooses"
            )

    @property
    def by_filter(self) -> Query:
        """The filter as a query of the history."""
        return self.query(rule=self.matched_by)


@app.command()
async def publish(
    file: Annotated[str, typer.Argument(help="A file with one event, or one a line; - for standard input.")],
    type_: Type = None,
    as_json: AsJson = False,
) -> None:
    """Add events to the journal; one whose id and source are known starts nothing."""
    raw = sys.stdin.buffer.read() if file == "-" else _read(Path(file))
    limits = load_settings().limits.as_limits()
    events = [parse_event(part, limits=limits, default_type=type_, default_source="cli") for part in _documents(raw)]
    async with open_session() as session:
        journal = Journal(session.redis, session.settings.journal)
        appended = await journal.append(events, received=datetime.now(UTC).isoformat(), listener="cli")
    rows = [
        {"id": event.id, "source": event.source, "type": event.type, "position": one.position, "new": one.new}
        for event, one in zip(events, appended, strict=True)
    ]
    if as_json:
        show_json(rows)
        return
    for row in rows:
        show_line(f"{row['id']}" if row["new"] else f"{row['id']} (known: nothing new was started)")


@app.command("list", shows_times=True)
async def list_(*, asked: EventFilter, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List events, the newest first."""
    async with open_session() as session:
        found = await session.history.search(asked.query(rule=asked.rule), limit=limit)
        if not found:
            await demand_rule(session, asked.rule)
    columns = ("id", "received", "type", "source", "subject", "outcome", "reason" if asked.failed else "matched")
    narrow = ("id", "received", "outcome", "type", "reason" if asked.failed else "subject")
    show_rows([one.row for one in found], columns, narrow=narrow, as_json=as_json, empty="no events")


@app.command(shows_times=True)
async def show(
    name: Annotated[
        str, typer.Argument(help="Id of an event, run, signal or dead letter, or its beginning; or a file.")
    ],
    source: Annotated[
        str | None, typer.Option("--source", help="The source of the event, if several have this id.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show one event: each rule's verdict, its runs, signals and dead letters, and how long each step took."""
    from services.listings.rows import whole_event
    from services.store.event_finder import EventFinder
    from services.store.event_transitions import EventTransitions

    async with open_session() as session:
        identity = await EventFinder(session.redis, session.history).find(name, source)
        found = await session.history.get(identity)
        if found is None:
            raise NotFound(f"the event {id_of(identity)!r} is not known (any more)")
        retention_seconds = session.settings.history.retention_seconds
        body = await whole_event(found, EventTransitions(session.redis, retention_seconds=retention_seconds))
        urls = {run.run_id: run_page(session.prefect_ui_url, run.run_id) for run in found.runs}
    if as_json:
        show_json(body | {"runs": [{**run, "url": urls[run["run_id"]]} for run in body["runs"]]})
    else:
        show_event(found, body["waits_for"], urls)


@app.command()
async def replay(
    *,
    chosen: ReplayedEvents,
    rule: Annotated[list[str] | None, typer.Option(help="Replay to this rule only; may be repeated.")] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Do everything again under new keys; without it only gaps are filled.")
    ] = False,
    salt: Annotated[str | None, typer.Option(help="Continue the rerun that printed this salt.")] = None,
    dry_run: DryRun = False,
    rate: Rate = 100.0,
    as_json: AsJson = False,
) -> None:
    """Replay events: those named or --failed repeat what failed, others are evaluated again by the present rules.

    Failed runs start again. Everything else keeps its keys, so that Prefect creates no run a second time; with --rerun
    all effects get new keys. An interrupted rerun is continued with its --salt.
    """
    from services.routing.replay import new_salt

    only, names = rule or (), chosen.names
    async with open_session() as session:
        again = _replay(session)
        found = await again.select(names or (), None if names else chosen.by_filter, source=chosen.source)
        used = (salt or new_salt()) if rerun or salt else None
        retries: list[Retry] = []
        positions = [position for _, position in found]
        if used is None and (names or chosen.failed):  # otherwise all is done again, or only gaps are filled
            retries, positions = await again.failures(found, named=bool(names), only=only)
        if dry_run:
            await _forecast(session, again, positions, only, retries, rerun=used is not None, as_json=as_json)
            return
        if used and positions:
            say(f"rerun {used}: if it is interrupted, continue it with --salt {used}")
        done = await again.replay(
            positions,
            retries=retries,
            only=only,
            salt=used,
            per_second=rate,
            by=login(),
            progress=lambda done: show_progress(done, len(positions)),
        )
    _tell(done, used, as_json=as_json)


def _replay(session: Session) -> Replay:
    """Return what replays events; imported here, because it needs the rules."""
    from services.routing.replay import Replay
    from services.store.event_finder import EventFinder

    return Replay(
        journal=Journal(session.redis, session.settings.journal),
        history=session.history,
        finder=EventFinder(session.redis, session.history),
        returns=session.file_returns,
        prefect=session.prefect,
    )


def _tell(done: Replayed, salt: str | None, *, as_json: bool) -> None:
    """Print the result of a replay. Raises `Refused`, after printing, if some events were refused."""
    if as_json:
        show_json(
            {
                "events": done.events + len(done.retried),
                "rerun": salt,
                "runs_started_again": done.runs,
                "refused": [{"id": one.event_id, "reason": one.reason} for one in done.refused],
            }
        )
    else:
        if done.retried:
            say(f"{len(done.retried)} events tried again, {done.runs} runs started again")
        if done.events or not done.retried:
            say(f"{done.events} events journalled again" + (f" as rerun {salt}" if salt else ": gaps are filled"))
    if done.refused:
        raise Refused("not-replayed", "; ".join(f"{one.event_id}: {one.reason}" for one in done.refused[:10]))


async def _forecast(
    session: Session,
    again: Replay,
    positions: Sequence[str],
    only: Sequence[str],
    retries: Sequence[Retry],
    *,
    rerun: bool,
    as_json: bool,
) -> None:
    """Print what the replay would do by the rules of the project file, and start nothing."""
    from config.project import load_project
    from events.rule import evaluate

    rules = load_project(session.settings.config, home=session.settings.home).rules
    forecast = await again.forecast(positions, lambda event: evaluate(rules, event), only=only, rerun=rerun)
    if as_json:
        rows = [{"id": one.found.id, "runs": one.runs, "rules": one.rules} for one in retries]
        show_json({"events": forecast.events, "rules": forecast.rows(), **({"again": rows} if rows else {})})
        return
    say(f"{forecast.events + len(retries)} events; nothing was started")
    for one in retries:
        show_line(f"{one.found.id}: {len(one.runs)} runs would start again: {one.found.reason or 'cancelled'}")
    if forecast.rows():
        show_rows(forecast.rows(), ("rule", "runs", "already_there", "signals", "gathered", "errors"), as_json=False)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}") from error


def _documents(raw: bytes) -> list[bytes]:
    """Divide standard input or a file into its JSON documents: one in all, or one on each line."""
    lines = [line for line in raw.splitlines() if line.strip()]
    if len(lines) < 2 or not all(line.lstrip().startswith(b"{") and line.rstrip().endswith(b"}") for line in lines):  # noqa: PLR2004 - several
        return [raw]
    return lines
