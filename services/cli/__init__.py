"""The command line: parse, call, print."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

os.environ.setdefault("DO_NOT_TRACK", "1")  # before Prefect is imported here or in a child: it counts its users then

from config.location import read_env_file
from config.logs import show_uncaught
from config.settings import DEFAULT_PROJECT
from services.cli import installation
from services.cli.commands import USAGE, Commands, tell_object
from services.cli.machine.completion import VARIABLE, answer_shell
from services.cli.output import say

NOUNS: Final = {
    **{noun: f"services.cli.{noun}" for noun in ("events", "rules", "runs", "signals", "dead", "token", "service")},
    **{noun: f"services.cli.authoring.{noun}" for noun in ("contract", "new")},
}
"""The modules with their commands."""

ALONE: Final = {
    "schema": "services.cli.rules",
    "storage": "services.cli.machine.storage",
    "completion": "services.cli.machine.completion",
    "doctor": "services.cli.machine.doctor",
    "top": "services.cli.machine.top",
    "acl": "services.cli.machine.acl",
    "backup": "services.cli.machine.backup",
    "restore": "services.cli.machine.backup",
}
"""Commands without a noun, and the modules that have a function of that name."""


class NounCommands(TyperGroup):
    """Imports a noun's commands when they are asked for: rules, contracts and their languages take most of a second."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Those of the installation, and the nouns."""
        return [*super().list_commands(ctx), *ALONE, *NOUNS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command or the group of that name; None where there is none."""
        if cmd_name in NOUNS:
            command: Any = typer.main.get_group(import_module(NOUNS[cmd_name]).app)
        elif cmd_name in ALONE:
            alone = Commands(add_completion=False)
            alone.command()(getattr(import_module(ALONE[cmd_name]), cmd_name))
            command = typer.main.get_command(alone)
        else:
            return super().get_command(ctx, cmd_name)
        command.name = cmd_name
        return command


app = Commands(
    name="sluice",
    cls=NounCommands,
    help="Files, messages and HTTP calls become Prefect flow runs; signals resume the runs that wait.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.callback()(installation.options)
installation.register(app)


def main() -> None:
    """The `sluice` command; what it was given is shown without hidden characters, also where it is no command.

    Its callers import this module without searches for garbage, which take a tenth of that time and find nothing.
    """
    gc.freeze()
    gc.enable()
    show_uncaught()
    if VARIABLE in os.environ:
        answer_shell()
    read_env_file(os.environ, Path.cwd(), default=DEFAULT_PROJECT)
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        message = error.format_message().replace("Value error, ", "")
        if message and "--json" in sys.argv[1:]:
            tell_object(USAGE, message)
        elif message:  # else it has printed the help
            usage = getattr(error, "ctx", None)
            if usage is not None:
                say(usage.get_usage())
            say(f"error: {message}")
        code = error.exit_code
    except typer.Abort:
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
