"""`sluice dead`: lists, replays and discards dead letters."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from events.dead_letter import DeadLetter
from events.errors import NotFound, Refused
from services.cli.commands import Commands
from services.cli.output import say, show_fields, show_json, show_progress, show_rows
from services.cli.session import Session, demand_rule, login, open_session, whole_event_id
from services.cli.terminal.options import AsJson, DryRun, Limit, Rate, Type
from services.listings.filters import LetterFilter
from services.listings.rows import letter_row
from services.store.dead_letters import DeadLetters, LetterQuery

app = Commands(help="Look at, replay and discard dead letters.", no_args_is_help=True)

_COLUMNS = ("id", "last_failed", "kind", "code", "rule", "source", "event_id", "attempts", "reason")
_NARROW = ("id", "last_failed", "code", "rule", "reason")


@dataclass(frozen=True, kw_only=True)
class ChosenLetters(LetterFilter):
    """Letters by id, by a filter, or all: exactly one of the three, so that nothing is discarded by mistake."""

    ids: Annotated[
        list[str] | None, typer.Argument(help="Ids of letters, or their beginnings; or choose by the options.")
    ] = None
    all_: Annotated[bool, typer.Option("--all", help="Every letter.")] = False

    def __post_init__(self) -> None:
        if sum((bool(self.ids), self.query() != LetterQuery(), self.all_)) != 1:
            raise typer.BadParameter("name ids of letters, or at least one option that chooses letters, or --all")

    async def read(self, session: Session) -> list[DeadLetter]:
        """Return the chosen letters, the oldest first, as a replay has to send them."""
        letters = DeadLetters(session.redis)
        if self.ids:
            return [await _letter(letters, letter_id) for letter_id in self.ids]
        return [letter async for letter in letters.walk(await _query(session, self))][::-1]


@app.command("list", shows_times=True)
async def list_(*, asked: LetterFilter, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List the letters that failed last, the newest first."""
    async with open_session() as session:
        letters = DeadLetters(session.redis)
        found = await letters.search(await _query(session, asked), limit=limit)
        count = await letters.count()
        if not found:
            await demand_rule(session, asked.rule)
    _show(found, as_json=as_json)
    if not as_json and count > len(found):
        say(f"{len(found)} of {count} letters")


@app.command(shows_times=True)
async def show(
    letter_id: Annotated[str, typer.Argument(help="The letter's id, or its beginning.")], as_json: AsJson = False
) -> None:
    """Show one letter with the message as it was received."""
    async with open_session() as session:
        letter = await _letter(DeadLetters(session.redis), letter_id)
    (show_json if as_json else show_fields)(letter_row(letter) | _raw(letter))


@app.command()
async def replay(
    *,
    chosen: ChosenLetters,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value first: data.amount=5; may be repeated.")
    ] = None,
    type_: Type = None,
    rate: Rate = 100.0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Replay letters, the oldest first; those that still cannot be handled stay, with exit code 1."""
    edits = _edits(set_ or ())
    async with open_session() as session:
        letters = await chosen.read(session)
        if dry_run:
            _show(letters, as_json=as_json)
            return
        failures = await _replay_all(session, letters, edits, type_=type_, rate=rate)
    if as_json:
        show_json({"replayed": len(letters) - len(failures), "failed": failures})
    else:
        say(f"{len(letters) - len(failures)} of {len(letters)} letters replayed")
    if failures:
        raise Refused("not-replayed", "; ".join(f"{one['id']}: {one['reason']}" for one in failures[:10]))


@app.command()
async def discard(*, chosen: ChosenLetters, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Delete letters for good."""
    async with open_session() as session:
        letters = await chosen.read(session)
        if dry_run:
            _show(letters, as_json=as_json)
            return
        gone = await DeadLetters(session.redis).discard([letter.id for letter in letters])
    if as_json:
        show_json({"discarded": gone})
    else:
        say(f"{gone} letters discarded")


async def _replay_all(
    session: Session, chosen: list[DeadLetter], edits: dict[str, Any], *, type_: str | None, rate: float
) -> list[dict[str, str]]:
    from services.routing.dead_letter_replay import DeadReplay
    from services.store.events.journal import Journal

    again = DeadReplay(
        journal=Journal(session.redis, session.settings.journal),
        letters=DeadLetters(session.redis),
        history=session.history,
        returns=session.file_returns,
        submit_signal=session.submission.submit,
        limits=session.settings.limits.as_limits(),
    )
    failures = []
    for number, letter in enumerate(chosen, 1):
        try:
            await again.replay(letter, edits, default_type=type_, by=login())
        except Refused as error:
            failures.append({"id": letter.id, "code": error.code, "reason": error.reason})
        show_progress(number, len(chosen))
        await asyncio.sleep(1 / rate)
    return failures


async def _letter(letters: DeadLetters, id_: str) -> DeadLetter:
    """Return the letter with the id, or the only one whose id begins with it. Raises `NotFound` and `Refused`."""
    letter = await letters.get(await letters.choose(id_))
    if letter is None:
        raise NotFound(f"the dead letter {id_!r} cannot be read")
    return letter


async def _query(session: Session, asked: LetterFilter) -> LetterQuery:
    return replace(asked.query(), event_id=await whole_event_id(session, asked.event))


def _show(letters: Sequence[DeadLetter], *, as_json: bool) -> None:
    show_rows(list(map(letter_row, letters)), _COLUMNS, narrow=_NARROW, as_json=as_json, empty="no dead letters")


def _edits(texts: Sequence[str]) -> dict[str, Any]:
    from services.routing.dead_letter_replay import parse_edit

    try:
        return dict(parse_edit(text) for text in texts)
    except Refused as error:
        raise typer.BadParameter(error.reason, param_hint="--set") from error


def _raw(letter: DeadLetter) -> dict[str, Any]:
    """Return the received message: as JSON if it is JSON, otherwise as text, otherwise in base64."""
    try:
        text = letter.raw.decode()
    except UnicodeDecodeError:
        return {"raw_base64": base64.b64encode(letter.raw).decode()}
    try:
        return {"content": json.loads(text), "raw": text}
    except ValueError:
        return {"raw": text}
