"""`sluice token`: makes, lists and revokes the tokens of the HTTP API."""

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
    """What the holder of a token may do; ``admin`` includes the others."""

    PUBLISH = "publish"
    SIGNAL = "signal"
    READ = "read"
    ADMIN = "admin"


@app.command()
async def create(
    name: Annotated[str, typer.Argument(help="Name of its holder, such as `shop`; shown in listings and logs.")],
    *,
    scope: Annotated[list[TokenScope], typer.Option("--scope", help="What its holder may do; may be repeated.")],
    source: Annotated[
        list[str] | None, typer.Option("--source", help="Only events of this source; a glob; may be repeated.")
    ] = None,
    rule: Annotated[
        list[str] | None, typer.Option("--rule", help="Read only what this rule led to; may be repeated.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="Only signals to this key; a glob; may be repeated.")
    ] = None,
    per_second: Annotated[
        float | None, typer.Option("--per-second", help="Most requests a second, and events in them.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="How long it is valid, such as 90d; without it, until revoked.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, once: Redis keeps only its digest."""
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
    say("it is not shown again; programs send it as `Authorization: Bearer TOKEN`")


@app.command("list", shows_times=True)
async def list_(as_json: AsJson = False) -> None:
    """List all tokens, the oldest first, with their rights and their last use."""
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
    """Revoke a token: after a second no API process accepts it."""
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
