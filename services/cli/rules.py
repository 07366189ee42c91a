"""`sluice rules`: lists the rules, and shows what they would do with an event or with past events."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from config.project import Project, load_project, parse_project, project_schema
from config.settings import Settings, load_settings
from events.comparison import Difference, compare, described, summary
from events.errors import ConfigError, NotFound, RejectedEvent
from events.event import Event, parse_event, stored_event
from events.identity import id_of
from events.rule import Rule, Verdict, evaluate, explained
from services.cli.commands import Commands
from services.cli.output import say, show_json, show_line, show_rows, show_title
from services.cli.session import demand_rule, open_session
from services.cli.terminal.options import AsJson, Limit, Type

app = Commands(help="List the rules, and try them on events; starts nothing.", no_args_is_help=True)

Config = Annotated[Path | None, typer.Option("--config", help="The rules to use instead of those of SLUICE_CONFIG.")]


@app.command("list")
def list_(config: Config = None, limit: Limit = 1000, as_json: AsJson = False) -> None:
    """List the rules in the order in which they are evaluated."""
    project = _load(load_settings(), config)
    rows = [_row(rule) for rule in project.rules.rules[:limit]]
    columns = ("name", "on", "source", "subject", "when", "does", "windows", "enabled")
    narrow = ("name", "on", "does")
    show_rows(rows, columns, narrow=narrow, as_json=as_json, empty=f"{project.path} has no rules")


@app.command("test")
async def try_(
    event: Annotated[str | None, typer.Argument(help="A file with one event as JSON; - for standard input.")] = None,
    *,
    against_last: Annotated[
        int | None,
        typer.Option("--against-last", min=1, help="Compare with the rules in force over this number of events."),
    ] = None,
    rule: Annotated[str | None, typer.Option(help="Only this rule.")] = None,
    type_: Type = None,
    config: Config = None,
    limit: Limit = 1000,
    as_json: AsJson = False,
) -> None:
    """Show each rule's verdict on EVENT and its actions, or what changed rules would have done with the last events."""
    if (event is None) == (against_last is None):
        raise typer.BadParameter("give either EVENT or --against-last")
    settings = load_settings()
    project = _load(settings, config)
    if rule is not None and project.rules.get(rule) is None:
        raise NotFound(f"{project.path} has no rule {rule!r}")
    if event is not None:
        found = _read(event, settings, type_)
        _show_verdicts(project, found, rule, limit=limit, as_json=as_json)
    elif against_last is not None:
        await _against_last(project, against_last, rule, limit=limit, as_json=as_json)


@app.command(shows_times=True)
async def dropped(
    rule: Annotated[str | None, typer.Argument(help="List what the windows of this rule dropped.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Show what throttle and dedupe_key have dropped: counts for each rule, or the last events of one rule."""
    from services.store.events.event_history import moment
    from services.store.rules.windows import WindowStore

    async with open_session() as session:
        store = WindowStore(session.redis, seen_seconds=session.settings.journal.seen_seconds)
        if rule is None:
            counts = await store.dropped()
            rows: list[dict[str, Any]] = [{"rule": name, "dropped": count} for name, count in counts.items()][:limit]
            show_rows(rows, ("rule", "dropped"), as_json=as_json, empty="nothing was dropped")
            return
        drops = await store.drops(rule, limit=limit)
        if not drops:
            await demand_rule(session, rule)
        names = {name for drop in drops for name in (drop.identity, drop.other) if name}
        sources = await session.known_events.sources(names)
        rows = [
            {
                "at": moment(drop.at_ms / 1000),
                "event_id": id_of(drop.identity),
                "source": sources.get(drop.identity),
                "why": drop.why,
                "key": drop.key,
                "repeats": id_of(drop.other) if drop.other else None,
                "repeats_source": sources.get(drop.other),
            }
            for drop in drops
        ]
        columns = ("at", "event_id", "source", "why", "key", "repeats")
        show_rows(rows, columns, as_json=as_json, empty=f"the windows of {rule} dropped nothing")


@app.command()
def graph(
    config: Config = None,
    svg: Annotated[bool, typer.Option("--svg", help="Print an SVG picture instead of Mermaid text.")] = False,
) -> None:
    """Draw the sources, the rules and what these start or send, as a Mermaid flowchart or an SVG picture."""
    from services.cli.authoring.rules_graph import as_mermaid, as_svg, graph_of

    picture = (as_svg if svg else as_mermaid)(graph_of(_load(load_settings(), config)))
    for line in picture.splitlines():
        show_line(line)


def schema() -> None:
    """Print the JSON Schema of the project file, for editors to complete and check."""
    show_json(project_schema())


def _load(settings: Settings, config: Path | None) -> Project:
    return load_project((config or settings.config).expanduser().resolve(), home=settings.home)


def _read(name: str, settings: Settings, type_: str | None) -> Event:
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise NotFound(f"{name} cannot be read: {error.strerror}") from error
    limits = settings.limits.as_limits()
    return parse_event(raw, limits=limits, default_type=type_, default_source="cli", from_outside=False)


def _row(rule: Rule) -> dict[str, Any]:
    spec = rule.spec
    windows = ("batch", "debounce", "correlate", "throttle", "dedupe_key", "rate", "max_active_runs")
    resumes = (action.resume for action in spec.actions if action.resume)
    return {
        "name": spec.name,
        "on": ", ".join(pattern for globs in rule.types.values() for pattern in globs.patterns),
        "source": ", ".join(spec.source or ()) or None,
        "subject": ", ".join(spec.subject or ()) or None,
        "when": spec.when,
        "does": ", ".join(
            [f"run {action.run}" for action in spec.actions if action.run]
            + [f"{resume.action} {resume.key or f'run {resume.run_id}'}" for resume in resumes]
        ),
        "windows": ", ".join(name for name in windows if getattr(spec, name) is not None) or None,
        "stop": spec.stop,
        "priority": spec.priority,
        "enabled": spec.enabled,
        "description": spec.description,
    }


def _show_verdicts(project: Project, event: Event, only: str | None, *, limit: int, as_json: bool) -> None:
    verdicts = [one for one in evaluate(project.rules, event) if only is None or one.rule == only][:limit]
    rows = [_verdict(project, verdict, event) for verdict in verdicts]
    if as_json:
        show_json(rows)
        return
    show_line(f"{event.type} from {event.source}" + (f", subject {event.subject}" if event.subject else ""))
    for row in rows:
        show_title(f"{'✓' if row['matched'] else '·'} {row['rule']}: {_said(row)}")
        for action in row["actions"]:
            for line in json.dumps(action, indent=2, ensure_ascii=False).split("\n"):
                show_line(line, indent="    ")


def _verdict(project: Project, verdict: Verdict, event: Event) -> dict[str, Any]:
    """Return a verdict for printing; for a rule with a window, with what it would do with this event alone."""
    rule = project.rules.get(verdict.rule)
    actions, error = verdict.actions, verdict.error
    alone = rule is not None and rule.gathers and verdict.matched and error is None
    if alone and rule is not None and rule.spec.correlate is None:
        try:
            actions = rule.actions([event])
        except RejectedEvent as found:
            error = found
    return {
        "rule": verdict.rule,
        "matched": verdict.matched,
        "failed": verdict.failed,
        "detail": explained(verdict, event.type),
        "error": error.reason if error else None,
        "window_keys": verdict.keys._asdict() if verdict.keys else None,
        "gathered": alone,
        "actions": [{"does": summary(action), **described(action)} for action in actions],
    }


def _said(row: dict[str, Any]) -> str:
    """Return a rule's verdict as a sentence."""
    if not row["matched"]:
        return f"no, by {row['failed']}: {row['detail']}"
    said = "matches"
    if row["window_keys"]:
        keys = ", ".join(f"{window} {key!r}" for window, key in row["window_keys"].items() if key is not None)
        said += f"; its windows decide by the keys {keys}"
    if row["gathered"]:
        said += "; with this event alone it would do"
    return said + (f"; but it becomes a dead letter: {row['error']}" if row["error"] else "")


async def _against_last(project: Project, count: int, only: str | None, *, limit: int, as_json: bool) -> None:
    """Print how the effects of the last ``count`` events would differ from those by the rules in force.

    The router records in Redis the rules that it has loaded: the file of this machine may be a newer one, and is what
    they are compared with. Windows are left out, because what they would gather depends on the time.
    """
    from services.store.events.history import Query
    from services.store.rules.rules_in_force import RulesInForce

    async with open_session() as session:
        in_force = await RulesInForce(session.redis).get()
        if in_force is None:
            raise NotFound("no rules are in force yet: start a router, which records the rules that it has loaded")
        try:
            present = parse_project(in_force.text, Path(in_force.path), home=session.settings.home)
        except ConfigError as error:
            raise NotFound(f"the rules in force (version {in_force.version}) cannot be read here: {error}") from error
        bodies = [found.event async for found in session.history.walk(Query(), limit=count)]
    events = [stored_event(body) for body in reversed(bodies) if body is not None]
    differences = [
        one for one in compare(present.rules, project.rules, events) if only is None or one.effect.rule == only
    ]
    rows = [_difference(one) for one in differences[:limit]]
    columns = ("change", "event_id", "source", "type", "subject", "rule", "does", "with")
    show_rows(rows, columns, as_json=as_json, empty="no difference")
    started = sum(one.change == "started" for one in differences)
    say(
        f"{len(events)} events: {project.path} (version {project.version}) does {started} things that the rules in"
        f" force (version {present.version}) do not, and not {len(differences) - started} that they do;"
        " windows are not simulated"
    )


def _difference(one: Difference) -> dict[str, Any]:
    return {
        "change": one.change,
        "event_id": one.event.id,
        "source": one.event.source,
        "type": one.event.type,
        "subject": one.event.subject,
        "rule": one.effect.rule,
        "does": one.effect.does,
        "with": json.loads(one.effect.content),
    }
