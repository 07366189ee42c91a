"""`sluice new`: the first files of a flow or a rule."""

from __future__ import annotations

from typing import Annotated

import typer

from config.settings import load_settings
from services.cli.commands import Commands
from services.cli.output import say, show_line

app = Commands(help="Write the first files of a flow or a rule; they pass all checks at once.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Lower-case words with `-`.")]


@app.command()
def flow(
    name: Name,
    area: Annotated[str | None, typer.Option(help="The folder below flows/, and a tag of its deployment.")] = None,
    waits: Annotated[bool, typer.Option("--waits", help="It waits for somebody's approval.")] = False,
    file: Annotated[bool, typer.Option("--file", help="It takes a file that arrives in a watched folder.")] = False,
) -> None:
    """A flow with its deployment, its rule and its test."""
    from services.local.new_files import new_flow

    settings = load_settings()
    for path in new_flow(settings.config, name, home=settings.home, area=area, waits=waits, file=file):
        show_line(str(path))
    say("`sluice check` checks it, `sluice deploy` registers it")


@app.command()
def rule(
    name: Name,
    run: Annotated[str, typer.Option(help="The deployment that it starts, flow/deployment.")],
) -> None:
    """A rule with a test beside it, at the end of the project file."""
    from services.local.new_files import new_rule

    settings = load_settings()
    new_rule(settings.config, name, home=settings.home, run=run)
    show_line(str(settings.config))
