"""The errors of Redis as ours: what each one asks of the caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ExecAbortError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from events.errors import Backpressure, TransientError
from services.store.unreadable import UnreadableKey, note_error


class NotAllowed(TransientError):
    """This user of Redis may not do it, or its password is another; somebody may change that while this runs."""


class GroupGone(TransientError):
    """The consumer group or its stream does not exist: create it and repeat the call."""


class ScriptGone(TransientError):
    """The server does not know the script of this digest: load it and repeat the call."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise Redis' errors as ours, each of which says what the caller does.

    `Backpressure`: Redis accepts nothing new. `GroupGone`, `ScriptGone`: create the group, load the script.
    `UnreadableKey`: the data is not ours; it is noted, and the inspector moves it to quarantine. `TransientError`:
    Redis is out of reach, or cannot do it now. Other errors are for the caller to handle (a missing key, an existing
    group), or a fault of ours. A client of `connect` translates by itself; calls of a blocking client or a subscription
    belong inside this context.
    """
    try:
        yield
    except OutOfMemoryError as error:
        msg = "Redis has reached its maxmemory: nothing new is accepted until there is room"
        raise Backpressure(msg) from error
    except (AuthenticationError, NoPermissionError) as error:
        raise NotAllowed(_refused(error)) from error
    except ResponseError as error:
        if _said(error).startswith("ACL failure"):  # of a command within a script
            raise NotAllowed(_refused(error)) from error
        translation = _translation(error)
        if translation is None:
            raise
        raise translation from error
    except (RedisError, OSError) as error:
        raise TransientError(f"Redis is out of reach: {error}") from error


_FULL: Final = {
    "MISCONF": "Redis cannot write to its disk",
    "NOREPLICAS": "Redis takes nothing while it has too few replicas",
}
_NOT_NOW: Final = frozenset({"BUSY", "BUSYKEY", "INPROG", "LOADING", "NOTBUSY", "UNBLOCKED"})
_NOT_NOW_EITHER: Final = (AskError, ClusterDownError, ExecAbortError, ReadOnlyError, TryAgainError)
"""Errors of a server that starts, fails over, runs a long script or moves slots: the same call works a little later.

The second tuple has the codes that redis-py removes from the message.
"""

_FOR_THE_CALLER: Final = ("BUSYGROUP", "no such key", "requires the key to exist")
_OURS: Final = ("unknown command", "unknown subcommand", "wrong number of arguments", "syntax error")


def _translation(error: ResponseError) -> Exception | None:
    """Return the error of Sluice for a response of Redis; None for one that the caller handles itself."""
    said = _said(error)
    code = said.partition(" ")[0]
    if code in _FULL:
        return Backpressure(f"{_FULL[code]}: {said}")
    if code in _NOT_NOW or isinstance(error, _NOT_NOW_EITHER):
        return TransientError(f"Redis is not ready: {said}")
    if code == "NOGROUP":
        return GroupGone(said)
    if isinstance(error, NoScriptError):
        return ScriptGone(said)
    if any(words in said for words in (*_FOR_THE_CALLER, *_OURS)):
        return None
    note_error(said)
    return UnreadableKey(f"something in Redis is not what Sluice put there: {said}")


def _refused(error: Exception) -> str:
    return f"Redis does not let this user do it (user and password, or its ACL: docs/security.md): {_said(error)}"


def _said(error: Exception) -> str:
    """Return the server's message; for a pipeline, redis-py puts the command before it, and the words into a tuple."""
    said = str(error).rpartition(" of pipeline caused error: ")[2]
    return said[2:-3] if said.startswith(("('", '("')) else said
