"""The command line: finds the module of a command, calls it, and prints its errors.

A command is imported only when it is called, because Prefect, the rules and the file formats take up to a second to
import, which `sluice status` and `sluice --help` need not wait for.
"""

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
"""The groups of commands, by name, and the modules whose `app` has their commands."""

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
"""Commands that are in no group, and the modules that have a function of that name."""


class NounCommands(TyperGroup):
    """The top-level group, which imports the module of a command when the command is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands and groups, without importing their modules."""
        return [*super().list_commands(ctx), *ALONE, *NOUNS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command or the group of that name; None if there is none."""
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
    """Run `sluice` and exit with its code: 0 done, 1 failed, 2 misuse or bad configuration, 130 interrupted.

    Its callers turn Python's garbage collector off before they import this module: while modules are imported it takes
    a tenth of the time and finds nothing. It is turned on here.
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
        # The arguments of a command that does not exist reach the terminal, too: `say` shows hidden characters.
        message = error.format_message().replace("Value error, ", "")  # pydantic's prefix for a validator's error
        if message and "--json" in sys.argv[1:]:
            tell_object(USAGE, message)
        elif message:  # without one, the help has been printed
            usage = getattr(error, "ctx", None)
            if usage is not None:
                say(usage.get_usage())
            say(f"error: {message}")
        code = error.exit_code
    except typer.Abort:
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
