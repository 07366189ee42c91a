"""`sluice backup` and `sluice restore`: copies a running installation, and makes an installation from a copy."""

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
    """Copy the running installation into DIR: Redis, Prefect's database, passwords and results of tasks.

    The installation keeps running. Only the owner of the home may make a backup, because it has the passwords.
    """
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
    say(f"{len(manifest.files)} files, with the passwords of the installation: keep them where nobody else reads them")


def restore(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `sluice backup` has made.")],
    home: HomeOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the installation that is in the home or in the named servers.")
    ] = False,
) -> None:
    """Put a backup into the home, and into the servers that the settings name.

    Nothing may run on them. Without --replace a home or server that has an installation is left as it is.
    """
    from services.local.backup.restoring import restore as put_back

    if home is not None:
        os.environ["SLUICE_HOME"] = str(home.expanduser().resolve())
    settings = load_settings()
    manifest = put_back(settings, directory.expanduser().absolute(), replace=replace, say=say)
    show_line(str(settings.home))
    said = "sluice up" if settings.redis_url is None else "start Prefect's server, then the roles (or sluice up)"
    say(f"restored as of {manifest.redis_copied:%Y-%m-%d %H:%M:%S} UTC. Next: {said}")
