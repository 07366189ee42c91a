"""`sluice acl`: makes users for a Redis of your own, one for each role, with the fewest rights that it needs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from config.canary import canary_stream
from config.project import load_project
from config.redis_users import USER_PREFIX
from config.settings import load_settings
from events.errors import ConfigError
from services.cli.output import say, show_line
from services.store.access.acl import AclUser, acl_file, acl_users


def acl(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The new folder for the three files.")],
) -> None:
    """Write users for a Redis of your own into DIR: its aclfile, and their passwords; only you can read the files.

    The rights depend on the sources in the project file: write new files when a source is added. DIR must be new, so
    that no password is overwritten that a running role uses.
    """
    settings = load_settings()
    project = load_project(settings.config, home=settings.home)
    named = project.name if settings.redis.shared else None
    sources = project.sources.redis_with_defaults(project=named).values()
    users = acl_users(sources, inner=canary_stream().values())
    target = directory.expanduser().absolute()
    files = {
        "users.acl": acl_file(users),
        "passwords.json": json.dumps({user.name: user.password for user in users}, indent=2) + "\n",
        "valkey.env": _env(users),
    }
    try:
        target.mkdir(mode=0o700, parents=True)
        for name, content in files.items():
            descriptor = os.open(target / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(content)
            show_line(str(target / name))
    except FileExistsError:
        raise ConfigError(f"{target} exists: name a new folder, so that no password is lost") from None
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}") from error
    say("the server reads users.acl with its setting `aclfile`, and its user `default` is off then; each role gets its")
    say(
        "name and password as SLUICE_REDIS__USERNAME and SLUICE_REDIS__PASSWORD, or the name of the file passwords.json"
    )
    say("as SLUICE_REDIS__USERS_FILE; compose.yaml and Kubernetes take valkey.env (docs/containers.md)")


def _env(users: Sequence[AclUser]) -> str:
    """Return variables for compose.yaml and Kubernetes: each user's password, and the aclfile in one line."""
    passwords = [f"VALKEY_{user.name.removeprefix(USER_PREFIX).upper()}_PASSWORD={user.password}" for user in users]
    lines = acl_file(users).splitlines()
    if wrong := [line for line in lines if "'" in line or ";" in line]:
        raise ConfigError(f"an environment file cannot hold this user (for ' or ;): {wrong[0]}")
    return "\n".join([*passwords, f"VALKEY_USERS='{';'.join(lines)}'", ""])
