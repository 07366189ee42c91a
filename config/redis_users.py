"""Which of the users that `sluice acl` made a process is in Redis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from events.errors import ConfigError

OPERATOR: Final = "operator"
"""Whoever calls a command."""

USER_PREFIX: Final = "sluice-"


def password_of(file: Path, name: str) -> str:
    """The password of the user ``name`` in a file of `sluice acl`. Raises `ConfigError` where it has none."""
    try:
        passwords = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"SLUICE_REDIS__USERS_FILE: {file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"SLUICE_REDIS__USERS_FILE: {file} is not the passwords.json of `sluice acl`") from error
    found = passwords.get(name) if isinstance(passwords, dict) else None
    if not isinstance(found, str) or not found:
        raise ConfigError(f"SLUICE_REDIS__USERS_FILE: {file} has no password of the user {name}")
    return found
