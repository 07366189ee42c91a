"""`sluice token`: who may call the API, and what for."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from services.cli.commands import Commands
from services.cli.output import say, show_json, show_line, show_rows
from services.cli.session import open_session
from services.cli.terminal.options import AsJson
from services.cli.terminal.times import seconds
from services.store.access.tokens import AccessToken, AccessTokens

app = Commands(help="Make, list and revoke tokens of the HTTP API.", no_args_is_help=True)

_COLUMNS = ("id", "name", "scopes", "expires", "last_used", "limits")


class TokenScope(StrEnum):
    """What a token is for."""

    PUBLISH = "publish"
    SIGNAL = "signal"
    READ = "read"
    ADMIN = "admin"


@app.command()
async def create(
    name: Annotated[str, typer.Argument(help="Whose it is, such as `shop`; shown in listings and logs.")],
    *,
    scope: Annotated[list[TokenScope], typer.Option("--scope", help="What it is for; may be given again.")],
    source: Annotated[
        list[str] | None, typer.Option("--source", help="Only events of this source; a glob; may be given again.")
    ] = None,
    rule: Annotated[
        list[str] | None, typer.Option("--rule", help="Reads only what this rule led to; may be given again.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="Only signals to this key; a glob; may be given again.")
    ] = None,
    per_second: Annotated[
        float | None, typer.Option("--per-second", help="At most so many requests, and events in them, a second.")
    ] = None,
    expires: Annotated[str | None, typer.Option("--expires", help="How long it is good, such as 90d.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it; it is not kept, and cannot be shown again."""
    good_seconds = None if expires is None else seconds(expires)
    async with open_session() as session:
        token, text = await AccessTokens(session.redis).create(
            name=name,
            scopes=tuple(one.value for one in scope),
            sources=tuple(source or ()),
            rules=tuple(rule or ()),
            keys=tuple(key or ()),
            per_second=per_second,
            expires_seconds=good_seconds,
        )
    if as_json:
        show_json({**_row(token, None), "token": text})
        return
    show_line(text)
    say("that was the only time it is shown; `Authorization: Bearer TOKEN` is how it is sent")


@app.command("list", shows_times=True)
async def list_(as_json: AsJson = False) -> None:
    """Every token, the oldest first, with what it may do and when it was last used."""
    async with open_session() as session:
        tokens = AccessTokens(session.redis)
        used = await tokens.last_used()
        rows = [_row(token, used.get(token.id)) for token in await tokens.all()]
    if not as_json:
        rows = [{**row, "scopes": " ".join(row["scopes"]), "limits": _limits(row)} for row in rows]
    show_rows(rows, _COLUMNS, as_json=as_json, empty="no tokens")


@app.command()
async def revoke(
    token: Annotated[str, typer.Argument(help="The token's name or id.")], as_json: AsJson = False
) -> None:
    """Take a token away; within a second no call with it is taken."""
    async with open_session() as session:
        gone = await AccessTokens(session.redis).revoke(token)
    if as_json:
        show_json({"revoked": gone.id, "name": gone.name})
    else:
        say(f"the token {gone.name} ({gone.id}) is revoked")


def _row(token: AccessToken, used: datetime | None) -> dict[str, Any]:
    return {
        **token.model_dump(exclude={"digest"}),
        "last_used": used,
        "expired": not token.is_good(datetime.now(UTC)),
    }


def _limits(row: dict[str, Any]) -> str:
    parts = [f"{name[:-1]} {', '.join(row[name])}" for name in ("sources", "rules", "keys") if row[name]]
    if row["per_second"]:
        parts.append(f"{row['per_second']:g}/s")
    return "; ".join([*parts, *(["expired"] if row["expired"] else [])]) or "-"
