"""`sluice signals`: sends resume signals and approval links, and shows the outcomes of signals."""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from events.errors import ConfigError, NotFound, Refused, TransientError
from events.signal import Outcome, ResumeSignal, parse_signal
from services.cli.commands import Commands
from services.cli.output import say, show_fields, show_json, show_line, show_rows, show_title
from services.cli.session import Session, login, open_session, whole_event_id
from services.cli.terminal.options import AsJson, By, InputText, Limit, Wait
from services.cli.terminal.times import in_full, seconds
from services.listings.filters import SignalFilter

app = Commands(help="Send resume signals, and see what became of them.", no_args_is_help=True)


_COLUMNS = ("id", "received", "outcome", "target", "by", "reason")
_NARROW = ("id", "received", "outcome", "target", "reason")
_FAILED = frozenset({Outcome.REJECTED, Outcome.UNKNOWN_RUN, Outcome.EXPIRED, Outcome.LATE})


@app.command()
async def send(
    message: Annotated[
        str | None, typer.Argument(help="A resume message as JSON file, or - for standard input.")
    ] = None,
    *,
    key: Annotated[str | None, typer.Option(help="The key that runs wait for.")] = None,
    run: Annotated[str | None, typer.Option(help="The run's id or name.")] = None,
    input_: InputText = None,
    reject: Annotated[bool, typer.Option("--reject", help="Reject the wait instead of answering it.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why it is rejected.")] = None,
    by: By = None,
    deliver: Annotated[
        Literal["all", "one"], typer.Option(help="Resume every run that waits for the key, or one.")
    ] = "all",
    ttl: Annotated[float | None, typer.Option(help="Seconds for which it is kept if no run waits yet.")] = None,
    buffer: Annotated[
        bool, typer.Option("--buffer", help="Keep it for a later run even if the last wait for the key is over.")
    ] = False,
    signal_id: Annotated[
        str | None, typer.Option("--id", help="Id of the signal; a repetition under the same id resumes nothing twice.")
    ] = None,
    wait: Wait = 10.0,
    as_json: AsJson = False,
) -> None:
    """Resume (or reject) waiting runs, and print the outcome of the signal; exit code 1 if it was not applied.

    The signal is recorded before the command waits for its outcome: if the command is interrupted, it is still applied.
    """
    if sum(given is not None for given in (message, key, run)) != 1:
        raise typer.BadParameter("give exactly one of MESSAGE, --key and --run")
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
                "deliver": deliver,
                "ttl_seconds": ttl,
                "buffer": buffer,
            }
            given = {name: value for name, value in fields.items() if value is not None}
            signal = parse_signal(json.dumps(given).encode(), limits=limits)
        await send_and_tell(session, signal, wait_seconds=wait, as_json=as_json)


@app.command("list", shows_times=True)
async def list_(*, asked: SignalFilter, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List signals, the newest first."""
    from services.listings.signals import find_signals, rows
    from services.store.signals.signal_queries import SignalQueries

    async with open_session() as session:
        run = None if asked.run is None else await run_id_of(session, asked.run)
        whole = replace(asked, run=run, event=await whole_event_id(session, asked.event))
        found = await rows(session.redis, await find_signals(SignalQueries(session.redis), whole, limit=limit))
    show_rows(found, _COLUMNS, narrow=_NARROW, as_json=as_json, empty="no signals")


@app.command(shows_times=True)
async def show(
    signal_id: Annotated[str, typer.Argument(help="The signal's id, or its beginning.")], as_json: AsJson = False
) -> None:
    """Show one signal: its content, the runs that it was applied to, and its log."""
    from services.listings.signals import whole
    from services.store.signals.signal_queries import SignalQueries

    async with open_session() as session:
        signals = SignalQueries(session.redis)
        record = await signals.get(await signals.choose(signal_id))
        if record is None:
            raise NotFound(f"there is no signal {signal_id!r}")
        found = await whole(session.redis, record)
    if as_json:
        show_json(found)
        return
    show_fields({name: value for name, value in found.items() if name not in {"runs", "log"}})
    for title, columns in (("runs", ("run_id", "outcome", "reason")), ("log", ("at", "status", "reason"))):
        if found[title]:
            show_title(title)
            show_rows(found[title], columns, as_json=False)


@app.command()
async def link(
    key: Annotated[str, typer.Argument(help="The key that a run waits for.")],
    person: Annotated[str, typer.Option("--for", help="The person for whom the link is, shown as who answered.")],
    *,
    expires: Annotated[str, typer.Option("--expires", help="How long it is valid, such as 2h.")] = "24h",
    run: Annotated[str | None, typer.Option(help="The run (id or name), if several wait for the key.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a link by which one person answers an open wait, once; send it by mail or chat.

    Whoever has the link can answer, without a token: it is signed with a secret of the installation.
    """
    good_seconds = seconds(expires)
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
    say(f"valid for one answer, until {in_full(made.expires)}; whoever has it answers as {made.person}")


async def send_and_tell(session: Session, signal: ResumeSignal, *, wait_seconds: float, as_json: bool) -> None:
    """Submit the signal, wait up to ``wait_seconds`` for its outcome and print it.

    Raises `Refused`, after printing, for an outcome that means failure, and `TransientError` if no resumer has handled
    the signal in time; it is recorded in both cases.
    """
    from services.listings.signals import row
    from services.store.signals.signals import SignalStore

    known = await session.submission.submit(signal, origin="sluice signals send")
    store = SignalStore(session.redis, session.settings.resumer)
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
            f"the signal is recorded and will be applied, but no resumer has handled it within {wait_seconds:g} s: "
            "`sluice status` says whether one runs"
        )


async def run_id_of(session: Session, run: str) -> str:
    """Return the id of the run with this id, beginning of an id, or name; Prefect is not asked for a whole id.

    Raises `NotFound` if there is none, and `Refused` if there are several.
    """
    try:
        return str(uuid.UUID(run))
    except ValueError:
        from services.prefect_api.run_calls import read_run

        return str((await read_run(await session.prefect(), run))["id"])


def parse_input(text: str | None) -> dict[str, Any] | None:
    """Return the option ``--input`` (JSON, ``@FILE``, or ``-`` for standard input) as an object; None if not given.

    Raises `ConfigError` if it cannot be read or is not a JSON object.
    """
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
