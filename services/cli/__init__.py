"""The command line: parse, call, print."""

from __future__ import annotations

import os

import typer

os.environ.setdefault("DO_NOT_TRACK", "1")  # before Prefect is imported here or in a child: it counts its users then

from services.cli import dead, events, installation, rules, runs, schema, signals

app = typer.Typer(
    name="sluice",
    help="Files, messages and HTTP calls become Prefect flow runs; signals resume the runs that wait.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
installation.register(app)
app.command()(schema.schema)
for noun in (events, rules, runs, signals, dead):
    app.add_typer(noun.app, name=noun.__name__.rpartition(".")[2])


def main() -> None:
    """The `sluice` command."""
    app()
