"""`sluice dead`: what could not be done, brought back or discarded."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any

import typer

from events.dead_letter import DeadLetter
from events.errors import NotFound, Refused
from services.cli.commands import Commands, run_command
from services.cli.output import say, show_fields, show_json, show_rows
from services.cli.session import Session, demand_rule, login, open_session, whole_event_id
from services.cli.terminal.times import Since, Until, Utc, period, show_times
from services.store.dead_letters import DeadLetters, LetterQuery

app = Commands(help="Look at, replay and discard dead letters.", no_args_is_help=True)


class LetterKind(StrEnum):
    """What a letter is about."""

    MESSAGE = "message"
    EVENT = "event"
    SIGNAL = "signal"
    JOB = "job"
    STORED = "stored"


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids of letters, or their beginnings; or choose by the options.")]
Code = Annotated[str | None, typer.Option("--code", help="Only with this code.")]
Rule = Annotated[str | None, typer.Option("--rule", help="Only of this rule.")]
Kind = Annotated[LetterKind | None, typer.Option("--kind", help="Only of this kind.")]
Source = Annotated[str | None, typer.Option("--source", help="Only from this source; a glob.")]
EventId = Annotated[str | None, typer.Option("--event", help="Only of the event with this id.")]
All = Annotated[bool, typer.Option("--all", help="Every letter.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say which letters these are.")]

_COLUMNS = ("id", "last_failed", "kind", "code", "rule", "source", "event_id", "attempts", "reason")
_NARROW = ("id", "last_failed", "code", "rule", "reason")


@app.command("list")
def list_(
    *,
    code: Code = None,
    rule: Rule = None,
    kind: Kind = None,
    source: Source = None,
    event: EventId = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
    utc: Utc = False,
) -> None:
    """The letters that failed last, the newest first."""
    show_times(utc=utc)
    query = _query(code, rule, kind, source, event, since, until)

    async def work() -> None:
        async with open_session() as session:
            letters = DeadLetters(session.redis)
            asked = replace(query, event_id=await whole_event_id(session, event))
            rows = [_row(letter) for letter in await letters.search(asked, limit=limit)]
            count = await letters.count()
            if not rows:
                await demand_rule(session, rule)
        show_rows(rows, _COLUMNS, narrow=_NARROW, as_json=as_json, empty="no dead letters")
        if not as_json and count > len(rows):
            say(f"{len(rows)} of {count} letters")

    run_command(work())


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(help="The letter's id, or its beginning.")],
    as_json: AsJson = False,
    utc: Utc = False,
) -> None:
    """One letter, with everything that was received."""
    show_times(utc=utc)

    async def work() -> None:
        async with open_session() as session:
            letter = await _letter(DeadLetters(session.redis), letter_id)
        whole = _row(letter) | {"first_failed": letter.first_failed} | _raw(letter)
        if as_json:
            show_json(whole)
        else:
            show_fields(whole)

    run_command(work())


@app.command()
def replay(
    ids: Ids = None,
    *,
    code: Code = None,
    rule: Rule = None,
    kind: Kind = None,
    source: Source = None,
    event: EventId = None,
    since: Since = None,
    until: Until = None,
    all_: All = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change it first: data.amount=5; may repeat.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="The type of a message that is plain JSON.")] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Letters a second at most.")] = 100.0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send letters on their way again, the oldest first; what still cannot be read stays, with exit code 1."""
    query = _query(code, rule, kind, source, event, since, until)
    _chosen(ids, query, all_=all_)
    edits = _edits(set_ or ())

    async def work() -> None:
        async with open_session() as session:
            chosen = await _letters(session, ids, query)
            if dry_run:
                rows = [_row(letter) for letter in chosen]
                show_rows(rows, _COLUMNS, narrow=_NARROW, as_json=as_json, empty="no dead letters")
                return
            failures = await _replay_all(session, chosen, edits, type_=type_, rate=rate)
        if as_json:
            show_json({"replayed": len(chosen) - len(failures), "failed": failures})
        else:
            say(f"{len(chosen) - len(failures)} of {len(chosen)} letters replayed")
        if failures:
            raise Refused("not-replayed", "; ".join(f"{one['id']}: {one['reason']}" for one in failures[:10]))

    run_command(work())


@app.command()
def discard(
    ids: Ids = None,
    *,
    code: Code = None,
    rule: Rule = None,
    kind: Kind = None,
    source: Source = None,
    event: EventId = None,
    since: Since = None,
    until: Until = None,
    all_: All = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Throw letters away for good."""
    query = _query(code, rule, kind, source, event, since, until)
    _chosen(ids, query, all_=all_)

    async def work() -> None:
        async with open_session() as session:
            chosen = await _letters(session, ids, query)
            if dry_run:
                rows = [_row(letter) for letter in chosen]
                show_rows(rows, _COLUMNS, narrow=_NARROW, as_json=as_json, empty="no dead letters")
                return
            gone = await DeadLetters(session.redis).discard([letter.id for letter in chosen])
        if as_json:
            show_json({"discarded": gone})
        else:
            say(f"{gone} letters discarded")

    run_command(work())


async def _replay_all(
    session: Session, chosen: list[DeadLetter], edits: dict[str, Any], *, type_: str | None, rate: float
) -> list[dict[str, str]]:
    import asyncio

    from services.routing.dead_letter_replay import DeadReplay
    from services.signals.submission import SignalSubmission
    from services.store.connection import connect_sync
    from services.store.events.history import History
    from services.store.events.journal import Journal
    from services.store.signals.signals import SignalStore

    settings = session.settings
    rq_redis = connect_sync(session.redis_url, settings.redis)
    limits = settings.limits.as_limits()
    submission = SignalSubmission(store=SignalStore(session.redis, settings.resumer), rq_redis=rq_redis, limits=limits)
    again = DeadReplay(
        journal=Journal(session.redis, settings.journal),
        letters=DeadLetters(session.redis),
        history=History(session.redis, settings.history),
        returns=session.file_returns,
        submit_signal=lambda signal, origin: submission.submit(signal, origin=origin),
        limits=limits,
    )
    failures = []
    try:
        for number, letter in enumerate(chosen, 1):
            try:
                await again.replay(letter, edits, default_type=type_, by=login())
            except Refused as error:
                failures.append({"id": letter.id, "code": error.code, "reason": error.reason})
            if sys.stderr.isatty():
                print(f"\r{number} of {len(chosen)}", end="\n" if number == len(chosen) else "", file=sys.stderr)
            await asyncio.sleep(1 / rate)
    finally:
        rq_redis.close()
    return failures


async def _letters(session: Session, ids: list[str] | None, query: LetterQuery) -> list[DeadLetter]:
    """The chosen letters, the oldest first."""
    letters = DeadLetters(session.redis)
    if not ids:
        query = replace(query, event_id=await whole_event_id(session, query.event_id))
        return [letter async for letter in letters.walk(query)][::-1]
    return [await _letter(letters, letter_id) for letter_id in ids]


async def _letter(letters: DeadLetters, id_: str) -> DeadLetter:
    """The letter with the id, or the only one whose id begins so."""
    letter = await letters.get(await letters.choose(id_))
    if letter is None:
        raise NotFound(f"the dead letter {id_!r} cannot be read")
    return letter


def _query(  # noqa: PLR0917 - as the commands take them
    code: str | None,
    rule: str | None,
    kind: LetterKind | None,
    source: str | None,
    event: str | None,
    since: str | None,
    until: str | None,
) -> LetterQuery:
    begin, end = period(since, until)
    name = None if kind is None else kind.value
    return LetterQuery(code=code, rule=rule, kind=name, source=source, event_id=event, since=begin, until=end)


def _edits(texts: Sequence[str]) -> dict[str, Any]:
    from services.routing.dead_letter_replay import parse_edit

    try:
        return dict(parse_edit(text) for text in texts)
    except Refused as error:
        raise typer.BadParameter(error.reason, param_hint="--set") from error


def _chosen(ids: list[str] | None, query: LetterQuery, *, all_: bool) -> None:
    if sum((bool(ids), query != LetterQuery(), all_)) != 1:
        raise typer.BadParameter("name ids of letters, or at least one option that chooses letters, or --all")


def _row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "last_failed": letter.last_failed,
        "first_failed": letter.first_failed,
        "id": letter.id,
        "kind": letter.kind,
        "code": letter.code,
        "rule": letter.rule,
        "source": letter.source,
        "event_id": letter.event_id,
        "attempts": letter.attempts,
        "reason": letter.reason,
    }


def _raw(letter: DeadLetter) -> dict[str, Any]:
    """What came in: as JSON where it is JSON, else as text, else in base64."""
    try:
        text = letter.raw.decode()
    except UnicodeDecodeError:
        return {"raw_base64": base64.b64encode(letter.raw).decode()}
    try:
        return {"content": json.loads(text), "raw": text}
    except ValueError:
        return {"raw": text}
