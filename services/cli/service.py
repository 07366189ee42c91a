"""`sluice service`: makes the installation a service of systemd."""

from __future__ import annotations

from typing import Annotated

import typer

from config.settings import load_settings
from services.cli.commands import Commands
from services.cli.output import say, show_line

app = Commands(help="Have systemd run `sluice up` for this project.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """Have systemd run `sluice up` for this project."""


@app.command()
def install(
    user: Annotated[bool, typer.Option("--user", help="Make a service of this user, which needs no root.")] = False,
    only_print: Annotated[bool, typer.Option("--print", help="Print the unit and write nothing.")] = False,
) -> None:
    """Write the systemd unit of this project, and print the commands that start it."""
    from services.local.systemd.unit import install_unit, unit_name, unit_text

    settings = load_settings()
    if only_print:
        for line in unit_text(settings, user=user).splitlines():
            show_line(line)
        return
    show_line(str(install_unit(settings, user=user)))
    name = unit_name(settings)
    control, logs = ("systemctl --user", "journalctl --user") if user else ("sudo systemctl", "sudo journalctl")
    say(f"to start it now and with the machine: {control} daemon-reload && {control} enable --now {name}")
    if user:
        say("to have it run while you are not logged in, too: loginctl enable-linger")
    say(f"state and logs: {control} status {name}, and {logs} -u {name} -f")
    say("settings and passwords: in the file .env beside the project file; restart the service afterwards")
