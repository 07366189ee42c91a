"""The command line: parse, call, print."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer
from typer.exceptions import TyperException

os.environ.setdefault("DO_NOT_TRACK", "1")  # before Prefect is imported here or in a child: it counts its users then

from config.location import read_env_file
from config.logs import show_uncaught
from config.settings import DEFAULT_PROJECT
from services.cli import contract, dead, events, installation, rules, runs, signals
from services.cli.output import say

app = typer.Typer(
    name="sluice",
    help="Files, messages and HTTP calls become Prefect flow runs; signals resume the runs that wait.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.callback()(installation.options)
installation.register(app)
app.command()(rules.schema)
for noun in (events, rules, runs, signals, dead, contract):
    app.add_typer(noun.app, name=noun.__name__.rpartition(".")[2])


def main() -> None:
    """The `sluice` command; what it was given is shown without hidden characters, also where it is no command."""
    show_uncaught()
    read_env_file(os.environ, Path.cwd(), default=DEFAULT_PROJECT)
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        message = error.format_message()
        if message:  # else it has printed the help
            usage = getattr(error, "ctx", None)
            if usage is not None:
                say(usage.get_usage())
            say(f"error: {message}")
        code = error.exit_code
    except typer.Abort:
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
