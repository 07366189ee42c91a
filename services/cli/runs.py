"""`sluice runs`: lists, shows, starts, resumes and cancels flow runs, by id or name."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from events.errors import ConfigError, NotFound, Refused, SluiceError
from events.identity import id_of
from events.signal import signal_from_mapping
from services.cli.commands import Commands
from services.cli.output import say, show_fields, show_json, show_line, show_rows, show_title
from services.cli.session import Session, demand_rule, login, open_session, whole_event_id
from services.cli.terminal.options import AsJson, By, Event, InputText, Limit, Wait
from services.home.prefect_pages import run_page
from services.listings.filters import RunFilter
from sluice.display import visible

if TYPE_CHECKING:
    from services.prefect_api.client import PrefectApi

app = Commands(help="Start, look at, resume and cancel flow runs, by id or name.", no_args_is_help=True)

Run = Annotated[str, typer.Argument(help="The run's id, the beginning of it, or its name.")]


@app.command("list", shows_times=True)
async def list_(
    *,
    asked: RunFilter,
    event: Event = None,
    totals: Annotated[bool, typer.Option("--totals", help="Print the number of runs in each state instead.")] = False,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest first by the time of their start; --state scheduled includes those of later."""
    from services.prefect_api.dispatch import TAG_LIMIT
    from services.prefect_api.run_listing import count_by_state, is_tag_used, list_runs

    query = asked.query()
    async with open_session() as session:
        prefect = await session.prefect()
        led = await whole_event_id(session, event)
        run_ids = None if led is None else await _runs_of_event(session, led)
        if led is not None and run_ids is None:
            query = replace(query, tags=(*query.tags, visible(f"event:{led}", TAG_LIMIT)))
        query = replace(query, run_ids=run_ids)
        rows = await list_runs(prefect, query, limit=limit)
        if not rows:
            if asked.rule is not None and not await is_tag_used(prefect, f"rule:{asked.rule}"):
                await demand_rule(session, asked.rule)
            if event is not None and run_ids is None:
                raise NotFound(f"the event {event!r} is not known (any more), and no run is tagged with it")
        counts = {} if as_json and not totals else await count_by_state(prefect, query)
        rows = [{**row, "url": _url(session, row["id"])} for row in rows]
    if totals:
        by_state = [{"state": name, "runs": count} for name, count in counts.items()]
        show_rows(by_state, ("state", "runs"), as_json=as_json, empty="no runs")
        return
    columns = ("id", "name", "deployment", "state", "started", "seconds", "message")
    show_rows(rows, columns, narrow=("id", "state", "started", "name", "message"), as_json=as_json, empty="no runs")
    if counts:
        each = ", ".join(f"{count} {name}" for name, count in counts.items())
        shown = f"; the newest {len(rows)} are shown" if len(rows) < sum(counts.values()) else ""
        say(f"{sum(counts.values())} runs: {each}{shown}")


@app.command()
async def start(
    deployment: Annotated[str, typer.Argument(help="flow/deployment; a flow alone means its deployment `default`.")],
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="NAME=VALUE, the value as JSON or text; may be repeated.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The run's name.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Print its log until it ends; exit 1 unless it completed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a run of a deployment now."""
    from services.prefect_api.run_calls import read_run, start_run

    parameters = _parameters(param or ())
    async with open_session() as session:
        prefect = await session.prefect()
        run = await start_run(prefect, deployment, parameters, name=name)
        if watch:
            say(f"{run['name']}: {_url(session, run['id'])}")
            await _follow(prefect, run, shown=0, silent=as_json)
            run = await read_run(prefect, run["id"])
        run = {**run, "url": _url(session, run["id"])}
        if as_json:
            show_json(run)
        else:
            show_line(f"{run['id']}  {run['name']}  {run['state']}" + (f": {run['message']}" if run["message"] else ""))
        if watch and run["state_type"] != "COMPLETED":
            raise typer.Exit(1)


@app.command(shows_times=True)
async def show(run: Run, as_json: AsJson = False) -> None:
    """Show one run, with the events that led to it and the signals that were sent to it."""
    from services.prefect_api.run_calls import read_run

    async with open_session() as session:
        found = await read_run(await session.prefect(), run)
        found = {**found, "url": _url(session, found["id"]), "events": await _events(session, found)}
        signals = await _signals(session, found["id"])
        if as_json:
            show_json({**found, "signals": signals})
            return
        events = [f"{one['id']} from {one['source'] or 'an unknown source'}" for one in found["events"]]
        show_fields({**found, "events": events})
        if signals:
            show_title("signals")
            show_rows(signals, ("id", "received", "outcome", "by", "reason"), as_json=False)


@app.command()
async def logs(
    run: Run,
    limit: Limit = 1000,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the run ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the log of a run, in order."""
    from services.prefect_api.run_calls import read_logs, read_run

    async with open_session() as session:
        prefect = await session.prefect()
        found = await read_run(prefect, run)
        lines = await read_logs(prefect, found["id"], limit=limit)
        if as_json:
            show_json(lines)
            return
        _print_lines(lines)
        if follow:
            await _follow(prefect, found, shown=len(lines))


@app.command()
async def resume(
    run: Run,
    input_: InputText = None,
    by: By = None,
    wait: Wait = 10.0,
    as_json: AsJson = False,
) -> None:
    """Resume a paused or suspended run; the answer to a run that does not wait yet is kept until it does."""
    from services.cli.signals import parse_input, run_id_of, send_and_tell

    async with open_session() as session:
        fields = {"run_id": await run_id_of(session, run), "input": parse_input(input_) or {}, "by": by or login()}
        signal = signal_from_mapping(fields)
        await send_and_tell(session, signal, wait_seconds=wait, as_json=as_json)


@app.command()
async def cancel(
    run: Run,
    wait: Annotated[float, typer.Option(help="Seconds to wait until it is cancelled; 0: only request it.")] = 30.0,
    reason: Annotated[str, typer.Option(help="Shown on the run's page.")] = "Cancelled with sluice runs cancel.",
) -> None:
    """Cancel a run: its process gets SIGTERM, and SIGKILL after the grace time."""
    from services.prefect_api.run_calls import cancel_run, read_run

    async with open_session() as session:
        prefect = await session.prefect()
        found = await read_run(prefect, run)
        state = await cancel_run(prefect, found["id"], reason=reason)
        deadline = time.monotonic() + wait
        while state == "Cancelling" and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            state = (await read_run(prefect, found["id"]))["state"]
        if state == "Cancelling" and wait:
            raise Refused("not-cancelled", f"the run {found['name']} is still not cancelled after {wait:g} s")
        say(f"{found['name']}: {state}")


def _parameters(given: Sequence[str]) -> dict[str, Any]:
    """Return parameters from NAME=VALUE; a value that is not JSON is a text. Raises `ConfigError` without a `=`."""
    parameters: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise ConfigError(f"--param {one!r} is not NAME=VALUE, such as --param path=/data/a.csv")
        try:
            parameters[name] = json.loads(value)
        except ValueError:
            parameters[name] = value
    return parameters


async def _follow(prefect: PrefectApi, run: dict[str, Any], *, shown: int, silent: bool = False) -> None:
    """Print the run's log after the first ``shown`` lines until the run has ended; with ``silent`` only wait."""
    from services.prefect_api.run_calls import read_logs, read_run

    over = False
    while not over:
        over = run["state_type"] in {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
        lines = [] if silent else await read_logs(prefect, run["id"], limit=100_000)
        _print_lines(lines[shown:])
        shown = max(shown, len(lines))
        if not over:
            await asyncio.sleep(1)
            run = await read_run(prefect, run["id"])


def _print_lines(lines: list[dict[str, Any]]) -> None:
    for line in lines:
        first, *more = str(line["message"]).split("\n")
        show_line(f"{line['time'].astimezone():%H:%M:%S.%f} {line['level']:<8} {first}")
        for text in more:
            show_line(text, indent=" " * 25)


async def _signals(session: Session, run_id: str) -> list[dict[str, Any]]:
    from services.listings.signals import rows
    from services.store.signals.signal_queries import SignalQueries

    return await rows(session.redis, await SignalQueries(session.redis).of_run(run_id))


async def _runs_of_event(session: Session, event: str) -> tuple[str, ...] | None:
    """Return the runs that events with this id led to, of any source; None if the history has no such event."""
    from services.store.events.history import HISTORY

    identities = await session.known_events.with_id(event, prefixes=(HISTORY,))
    found = [await session.history.get(identity) for identity in identities]
    return tuple(run.run_id for one in found if one for run in one.runs) if identities else None


def _url(session: Session, run_id: str) -> str:
    return run_page(session.prefect_ui_url, run_id)


async def _events(session: Session, run: dict[str, Any]) -> list[dict[str, str | None]]:
    """Return the events that led to the run: from Redis, or from the run's tags if Redis has none or is away."""
    from services.store.runs.created_runs import CreatedRuns

    try:
        record = await CreatedRuns(session.redis).get(run["id"])
        identities = [identity for identity, _ in record.events] if record else []
        sources = await session.known_events.sources(identities)
    except SluiceError:
        identities, sources = [], {}
    if identities:
        return [{"id": id_of(identity), "source": sources[identity]} for identity in identities]
    return [{"id": run["event"], "source": run["event_source"]}] if run["event"] else []
