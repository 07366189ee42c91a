"""`sluice acl`: users for a Redis of your own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from config.project import load_project
from config.settings import load_settings
from events.errors import ConfigError
from services.cli.output import say, show_line
from services.store.access.acl import acl_file, acl_users


def acl(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The new folder for the two files.")],
) -> None:
    """Write users for a Redis of your own into DIR: its aclfile, and their passwords; only you can read them."""
    settings = load_settings()
    project = load_project(settings.config, home=settings.home)
    named = project.name if settings.redis.shared else None
    users = acl_users(project.sources.redis_with_defaults(project=named).values())
    target = directory.expanduser().absolute()
    files = {
        "users.acl": acl_file(users),
        "passwords.json": json.dumps({user.name: user.password for user in users}, indent=2) + "\n",
    }
    try:
        target.mkdir(mode=0o700, parents=True)
        for name, content in files.items():
            descriptor = os.open(target / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(content)
            show_line(str(target / name))
    except FileExistsError:
        raise ConfigError(f"{target} is there already: name a new folder, so that no password is lost") from None
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}") from error
    say("the server reads users.acl with its setting `aclfile`; each role gets its name and password as")
    say("SLUICE_REDIS__USERNAME and SLUICE_REDIS__PASSWORD, and `default` is off")
