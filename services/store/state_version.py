"""The version of the state in Redis, by which an older program recognises a state that it must not touch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from redis.asyncio.connection import AbstractConnection
from redis.connection import Connection
from redis.exceptions import ClusterDownError, NoPermissionError, ResponseError

from events.errors import ConfigError
from services.store.keys import Key, is_number
from services.store.unreadable import UnreadableKey, note_error, reading

KEY: Final = "sluice:state-version"

STATE_VERSION: Final = 1
"""Increased by a change that an older program would read wrongly or destroy; added fields are no such change."""


def refuse_newer(found: object) -> None:
    """Raise `ConfigError` where ``found``, the value of `KEY`, is the version of a newer program."""
    if not isinstance(found, bytes):
        return
    with reading(KEY):
        version = is_number(found)
    if version > STATE_VERSION:
        raise ConfigError(
            f"this Redis holds the state of a newer Sluice (version {version} of the state; this program knows up to "
            f"{STATE_VERSION}), and nothing was touched: start the newer Sluice, or restore a backup that was made "
            "before the upgrade (docs/backup.md)"
        )


async def look_at_version(connection: AbstractConnection) -> None:
    """Check the version on a new connection; raises `ConfigError` for the state of a newer program."""
    await connection.on_connect_check_health(check_health=False)
    await connection.send_command("GET", KEY, check_health=False)
    try:
        with _version_if_any():
            refuse_newer(await connection.read_response())
    except ConfigError:
        await connection.disconnect()  # or the pool would return it as a ready one
        raise


def look_at_version_blocking(connection: Connection) -> None:
    """`look_at_version` of a blocking client."""
    # A check before authentication would be refused, connect again, and so on.
    connection.on_connect_check_health(check_health=False)
    connection.send_command("GET", KEY, check_health=False)  # type: ignore[no-untyped-call]
    try:
        with _version_if_any():
            refuse_newer(connection.read_response())
    except ConfigError:
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise


@contextmanager
def _version_if_any() -> Iterator[None]:
    """If the version cannot be read, the connection is used as it is.

    A Sentinel has no keys; a publisher's user may not read the state and cannot touch it; a node of a cluster that is
    not ready refuses the next command, too; and the inspector, which moves garbage to quarantine, needs a connection.
    """
    try:
        yield
    except (UnreadableKey, NoPermissionError, ClusterDownError):
        return
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            note_error(f"key={KEY}")
        elif "unknown command" not in str(error):
            raise


KEYS: Final = (Key(KEY, "string", "version of the state", "for good", is_number),)
