"""`sluice backup` and `sluice restore`: a copy of a running installation, and an installation out of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from config.settings import load_settings
from services.cli.output import say, show_json, show_line
from services.cli.terminal.options import AsJson, HomeOption


def backup(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The new folder that becomes the backup.")],
    as_json: AsJson = False,
) -> None:
    """Copy the running installation into DIR: Redis, Prefect's database, passwords and results of tasks."""
    from services.home.access import find_access
    from services.home.home import Home
    from services.local.backup.making import back_up

    settings = load_settings()
    Home(settings.home).refuse_others()
    target = directory.expanduser().absolute()
    manifest = back_up(settings, find_access(settings), target, say=say)
    if as_json:
        show_json(manifest.model_dump(mode="json"))
        return
    show_line(str(target))
    say(f"{len(manifest.files)} files; it holds the passwords of the installation: keep it where nobody else reads")


def restore(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `sluice backup` has made.")],
    home: HomeOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where the home, or a server that is named, holds one.")
    ] = False,
) -> None:
    """Put a backup into the home, and into the servers that are named, where nothing runs."""
    from services.local.backup.restoring import restore as put_back

    if home is not None:
        os.environ["SLUICE_HOME"] = str(home.expanduser().resolve())
    settings = load_settings()
    manifest = put_back(settings, directory.expanduser().absolute(), replace=replace, say=say)
    show_line(str(settings.home))
    said = "sluice up" if settings.redis_url is None else "start Prefect's server, then the roles (or sluice up)"
    say(f"restored as of {manifest.redis_copied:%Y-%m-%d %H:%M:%S} UTC. Next: {said}")
