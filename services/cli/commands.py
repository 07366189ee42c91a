"""What all commands have in common: an error becomes a sentence, or with ``--json`` an object, and an exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import typer
from typer.core import TyperCommand
from typing_extensions import override

from events.errors import Backpressure, ConfigError, NotFound, Refused, SluiceError, TransientError
from events.redact import redacted
from services.cli.output import say, say_json

USAGE: Final = "usage"
_REMEDIES: Final[dict[str, str]] = {
    USAGE: "call the command with --help: it lists what the command takes",
    "config": "mend what the message names, and call the command again; `sluice check` finds all of it at once",
    "not-found": "list what there is with the command's `list`, and give an id of it or its beginning",
    "ambiguous": "give more of the id, or what else the message asks for",
    "unavailable": "`sluice status` tells which part does not answer; call the command again when it does",
    "refused": "mend the file, or say in a contract how it is to be read (docs/contracts.md)",
    "full": "Redis has no room: `sluice doctor` tells how much it has; make room, and call the command again",
    "failed": "`sluice doctor` looks for what is wrong with this machine and its servers",
}


class Command(TyperCommand):
    """A command whose errors end as the contract has them: 1 failed, 2 misuse or bad configuration, 130 interrupted."""

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SluiceError as error:
            tell_error(error, as_json=bool(ctx.params.get("as_json")))
            raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            raise typer.Exit(130) from error


class Commands(typer.Typer):
    """A group of such commands."""

    @override
    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        return super().command(name, **{"cls": Command, **options})


def run_command(work: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end."""
    asyncio.run(work)


def tell_error(error: SluiceError, *, as_json: bool) -> None:
    """Say what went wrong on standard error: a sentence for each problem, or one object."""
    problems = list(error.problems) if isinstance(error, ConfigError) else [str(error)]
    if as_json:
        tell_object(_code(error), *problems)
        return
    for problem in problems:
        say(f"error: {problem}")


def tell_object(code: str, *problems: str) -> None:
    """An error as a JSON object on standard error: ``code``, ``message`` and ``remedy``."""
    remedy = _REMEDIES.get(code, _REMEDIES["failed"])
    told = {"code": code, "message": redacted("\n".join(problems)), "remedy": remedy}
    say_json(told)


def _code(error: SluiceError) -> str:
    match error:
        case ConfigError():
            return "config"
        case Refused():
            return error.code
        case NotFound():
            return "not-found"
        case TransientError():
            return "unavailable"
        case Backpressure():
            return "full"
        case _:
            return "failed"
