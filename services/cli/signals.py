"""`sluice signals`: send resume signals and see what became of them."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from config.health import is_canary
from events.errors import ConfigError, NotFound, Refused, TransientError
from events.identity import id_of
from events.signal import Outcome, ResumeSignal, parse_signal
from services.cli.commands import Commands, run_command
from services.cli.output import say, show_fields, show_json, show_line, show_rows, show_title
from services.cli.session import Session, login, open_session, whole_event_id
from services.cli.terminal.times import Since, Until, Utc, in_full, period, seconds, show_times
from services.store.signals.signal_record import RECEIVED

if TYPE_CHECKING:
    from services.store.signals.signal_record import SignalRecord

app = Commands(help="Send resume signals, and see what became of them.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for the outcome; 0: only send.")]
InputText = Annotated[
    str | None, typer.Option("--input", help="What the run gets: a JSON object, @FILE, or - for standard input.")
]

_COLUMNS = ("id", "received", "outcome", "target", "by", "reason")
_NARROW = ("id", "received", "outcome", "target", "reason")
_FAILED = frozenset({Outcome.REJECTED, Outcome.UNKNOWN_RUN, Outcome.EXPIRED, Outcome.LATE})


class Deliver(StrEnum):
    """To how many of the runs that wait for a key."""

    ALL = "all"
    ONE = "one"


@app.command()
def send(
    message: Annotated[
        str | None, typer.Argument(help="A resume message as JSON file, or - for standard input.")
    ] = None,
    *,
    key: Annotated[str | None, typer.Option(help="The correlation key that runs wait for.")] = None,
    run: Annotated[str | None, typer.Option(help="The run's id or name.")] = None,
    input_: InputText = None,
    reject: Annotated[bool, typer.Option("--reject", help="Refuse instead of resuming.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why it is refused.")] = None,
    by: Annotated[str | None, typer.Option(help="Who sends it; your login name by default.")] = None,
    deliver: Annotated[Deliver, typer.Option(help="Resume every run that waits for the key, or one.")] = Deliver.ALL,
    ttl: Annotated[float | None, typer.Option(help="Seconds for which it is kept if nobody waits yet.")] = None,
    buffer: Annotated[
        bool, typer.Option("--buffer", help="Keep it for a later run, also where the last wait for the key is over.")
    ] = False,
    signal_id: Annotated[
        str | None, typer.Option("--id", help="Sending again under one id resumes nothing twice.")
    ] = None,
    wait: Wait = 10.0,
    as_json: AsJson = False,
) -> None:
    """Resume (or reject) the run that waits, and print what became of it."""
    if sum(given is not None for given in (message, key, run)) != 1:
        raise typer.BadParameter("give exactly one of MESSAGE, --key and --run")

    async def work() -> None:
        async with open_session() as session:
            limits = session.settings.limits.as_limits()
            if message is not None:
                signal = parse_signal(_read(message), limits=limits)
            else:
                fields = {
                    "id": signal_id or str(uuid.uuid4()),
                    "key": key,
                    "run_id": None if run is None else await run_id_of(session, run),
                    "input": parse_input(input_),
                    "action": "reject" if reject else "resume",
                    "reason": reason,
                    "by": by or login(),
                    "deliver": deliver.value,
                    "ttl_seconds": ttl,
                    "buffer": buffer,
                }
                given = {name: value for name, value in fields.items() if value is not None}
                signal = parse_signal(json.dumps(given).encode(), limits=limits)
            await send_and_tell(session, signal, wait_seconds=wait, as_json=as_json)

    run_command(work())


@app.command("list")
def list_(
    *,
    outcome: Annotated[str | None, typer.Option(help="Only those with this outcome, such as buffered.")] = None,
    run: Annotated[str | None, typer.Option(help="Only those of this run (id or name).")] = None,
    key: Annotated[str | None, typer.Option(help="Only those for this key.")] = None,
    event: Annotated[str | None, typer.Option(help="Only those that the event with this id led to.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
    utc: Utc = False,
) -> None:
    """The newest signals first."""
    show_times(utc=utc)
    begin, end = period(since, until)
    statuses = [RECEIVED, *(one.value for one in Outcome)]
    if outcome is not None and outcome not in statuses:
        raise typer.BadParameter(f"--outcome {outcome!r} is none: choose from {', '.join(statuses)}")

    async def work() -> None:
        from services.signals.listing import row
        from services.store.signals.signals import SignalStore

        async with open_session() as session:
            store = SignalStore(session.redis, session.settings.resumer)
            led = await whole_event_id(session, event)

            def wanted(one: SignalRecord) -> bool:
                at = one.received.timestamp()
                identity = one.signal.event_identity
                return (
                    outcome in {None, one.status}
                    and key in {None, one.signal.key}
                    and led in {None, id_of(identity) if identity else ""}
                    and (begin is None or at >= begin)
                    and (end is None or at < end)
                    and (key is not None or not is_canary(one.signal.id))
                )

            if run is None:
                records = await store.newest(limit, wanted=wanted)
            else:
                found = await store.of_run(await run_id_of(session, run))
                records = [one for one in reversed(found) if wanted(one)][:limit]
            sources = await event_sources(session, records)
            rows = [row(record, sources) for record in records]
            show_rows(rows, _COLUMNS, narrow=_NARROW, as_json=as_json, empty="no signals")

    run_command(work())


@app.command()
def show(
    signal_id: Annotated[str, typer.Argument(help="The signal's id, or its beginning.")],
    as_json: AsJson = False,
    utc: Utc = False,
) -> None:
    """One signal: what it says, the runs it was for, and what happened to it when."""
    show_times(utc=utc)

    async def work() -> None:
        from services.signals.listing import whole
        from services.store.signals.signals import SignalStore

        async with open_session() as session:
            store = SignalStore(session.redis, session.settings.resumer)
            record = await store.get(await store.choose(signal_id))
            if record is None:
                raise NotFound(f"there is no signal {signal_id!r}")
            found = whole(record, await event_sources(session, [record]))
            if as_json:
                show_json(found)
                return
            show_fields({name: value for name, value in found.items() if name not in {"runs", "log"}})
            for title, columns in (("runs", ("run_id", "outcome", "reason")), ("log", ("at", "status", "reason"))):
                if found[title]:
                    show_title(title)
                    show_rows(found[title], columns, as_json=False)

    run_command(work())


@app.command()
def link(
    key: Annotated[str, typer.Argument(help="The key that a run waits for.")],
    person: Annotated[str, typer.Option("--for", help="Whom the link is for; shown as who answered.")],
    *,
    expires: Annotated[str, typer.Option("--expires", help="How long it is good, such as 2h.")] = "24h",
    run: Annotated[str | None, typer.Option(help="Which run (id or name), where several wait for the key.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a link by which one person answers an open wait, once; send it by mail or chat."""
    good_seconds = seconds(expires)

    async def work() -> None:
        from config.project import load_project
        from services.home.access import find_access
        from services.prefect_api.waiting import WaitingRuns
        from services.signals.approval_link import PATH, issue
        from services.store.access.link_secret import link_secret

        async with open_session() as session:
            settings = session.settings
            base = settings.api.public_url or find_access(settings).api_url
            if base is None:
                raise ConfigError("SLUICE_API__PUBLIC_URL is not set: it says where people reach the API")
            project = load_project(settings.config, home=settings.home).name
            made = await issue(
                WaitingRuns(await session.prefect(), project=project),
                key=key,
                person=person,
                seconds=good_seconds,
                run_id=None if run is None else await run_id_of(session, run),
            )
            url = f"{str(base).rstrip('/')}{PATH}{made.text(await link_secret(session.redis))}"
        if as_json:
            show_json({"url": url, "run_id": made.run_id, "for": made.person, "expires": made.expires})
            return
        show_line(url)
        say(f"good for one answer, until {in_full(made.expires)}; whoever has it answers as {made.person}")

    run_command(work())


async def event_sources(session: Session, records: Sequence[SignalRecord]) -> dict[str, str | None]:
    """The sources of the events that led to the signals, by identity."""
    from services.store.events.journal import STREAM
    from services.store.events.known_events import KnownEvents

    identities = [one.signal.event_identity for one in records if one.signal.event_identity]
    return await KnownEvents(session.redis, stream=STREAM).sources(identities)


async def send_and_tell(session: Session, signal: ResumeSignal, *, wait_seconds: float, as_json: bool) -> None:
    """Hand the signal in and print its outcome; raises `Refused` for one that means failure."""
    from services.signals.listing import row
    from services.signals.submission import SignalSubmission
    from services.store.connection import connect_sync
    from services.store.signals.signals import SignalStore

    store = SignalStore(session.redis, session.settings.resumer)
    rq_redis = connect_sync(session.redis_url, session.settings.redis)
    try:
        submission = SignalSubmission(store=store, rq_redis=rq_redis, limits=session.settings.limits.as_limits())
        known = await submission.submit(signal, origin="sluice signals send")
    finally:
        rq_redis.close()
    record = await store.outcome(signal.id, wait_seconds, of=tuple(Outcome)) if wait_seconds else None
    record = record or await store.get(signal.id)
    found = row(record) if record else {"id": signal.id, "outcome": "received", "reason": ""}
    if known is Outcome.DUPLICATE:
        found |= {"reason": f"this id was sent before, and then {found['outcome']}", "outcome": Outcome.DUPLICATE.value}
    if as_json:
        show_json(found)
    else:
        show_line(f"{found['id']}  {found['outcome']}" + (f": {found['reason']}" if found["reason"] else ""))
    if found["outcome"] in _FAILED:
        raise Refused(found["outcome"], f"the signal was not applied ({found['outcome']}): {found['reason']}")
    if found["outcome"] == "received" and wait_seconds:
        raise TransientError(
            f"the signal is recorded and will be applied, but no resumer has looked at it within {wait_seconds:g} s: "
            "`sluice status` tells whether one runs"
        )


async def run_id_of(session: Session, run: str) -> str:
    """The run's id from its id, the beginning of it, or its name; raises `NotFound` for a name that no run has."""
    try:
        return str(uuid.UUID(run))
    except ValueError:
        from services.prefect_api.run_calls import read_run

        return str((await read_run(await session.prefect(), run))["id"])


def parse_input(text: str | None) -> dict[str, Any] | None:
    """The option ``--input`` as a JSON object; raises `ConfigError`."""
    if text is None:
        return None
    raw = _read(text.removeprefix("@")) if text == "-" or text.startswith("@") else text.encode()
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise ConfigError(f"--input is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError("--input must be a JSON object, such as '{\"approved\": true}'")
    return value


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}") from error
