"""`sluice new`: writes the first files of a flow or a rule into the project."""

from __future__ import annotations

from typing import Annotated

import typer

from config.settings import load_settings
from services.cli.commands import Commands
from services.cli.output import say, show_line

app = Commands(
    help="Write the first files of a flow or a rule; they pass all checks as they are.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="Its name: lower-case words joined by `-`.")]


@app.command()
def flow(
    name: Name,
    area: Annotated[str | None, typer.Option(help="A folder below flows/ for it, and a tag of its deployment.")] = None,
    waits: Annotated[bool, typer.Option("--waits", help="A flow that waits for an approval.")] = False,
    file: Annotated[bool, typer.Option("--file", help="A flow for files that arrive in a watched folder.")] = False,
) -> None:
    """Write a flow with its deployment, its rule and its test; existing files are not overwritten."""
    from services.local.new_files import new_flow

    settings = load_settings()
    for path in new_flow(settings.config, name, home=settings.home, area=area, waits=waits, file=file):
        show_line(str(path))
    say("`sluice check` checks it, `sluice deploy` registers it")


@app.command()
def rule(
    name: Name,
    run: Annotated[str, typer.Option(help="The deployment that the rule starts, flow/deployment.")],
) -> None:
    """Add a rule with a test to the end of the project file, whose other lines stay as they are."""
    from services.local.new_files import new_rule

    settings = load_settings()
    new_rule(settings.config, name, home=settings.home, run=run)
    show_line(str(settings.config))
