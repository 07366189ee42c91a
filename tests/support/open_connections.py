"""Connections to Redis that a test has left open."""

from __future__ import annotations

import weakref
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection

_made: Final[weakref.WeakSet[AbstractConnection]] = weakref.WeakSet()
_kept: Final[list[AbstractConnection]] = []


def watch() -> None:
    """Have each asyncio connection that is made from now on looked at by `left_open`."""
    honest = AbstractConnection.__init__

    def noting(self: AbstractConnection, *args: Any, **options: Any) -> None:
        honest(self, *args, **options)
        _made.add(self)

    AbstractConnection.__init__ = noting


def left_open() -> list[str]:
    """Those that were made since it was last asked, and are open.

    They are kept: the garbage collector would speak of them at some time, in a test that has nothing to do with them.
    """
    found = [connection for connection in _made if connection.is_connected]
    _made.clear()
    _kept.extend(found)
    return [repr(connection) for connection in found]
