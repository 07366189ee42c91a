"""Notes unreadable keys in Redis, so that the role's inspector moves them to quarantine.

Anybody who can write to Redis can put anything under any key. A reader that finds such data continues without it
(`readable`) or repeats the read later (`reading`, which raises `UnreadableKey`); either way the key is noted here for
`services.store.inspection.key_inspection`, which makes it a dead letter.
"""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

from events.errors import Refused, TransientError

Value = TypeVar("Value")

FAULTS: Final = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
    zlib.error,
    Refused,
)
"""Exceptions that reading garbage raises. A UnicodeDecodeError and pydantic's errors are ValueErrors."""

_NAMED_KEY: Final = re.compile(r"\bkey=([^\s,]+)")


class UnreadableKey(TransientError):
    """Data in Redis that Sluice has not written. It is moved to quarantine soon; then the same call works again."""


class Noted:
    """The keys with unreadable data that this process has found since the last `take`; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: set[bytes] = set()
        self._everything = False

    def add(self, key: str | bytes | None) -> None:
        """Note ``key``; None if the key is unknown."""
        with self._lock:
            if key is None:
                self._everything = True
            else:
                self._keys.add(key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key)

    def take(self) -> tuple[set[bytes], bool]:
        """Return the noted keys, and whether an unknown one is among them, and forget them."""
        with self._lock:
            keys, everything = self._keys, self._everything
            self._keys, self._everything = set(), False
        return keys, everything


noted: Final = Noted()
"""The keys that this process has noted."""


def note_error(message: str) -> None:
    """Note the key that an error of Redis names, as `lua/shared/expect.lua` does; an unknown one if it names none."""
    named = _NAMED_KEY.search(message)
    noted.add(unquote_to_bytes(named[1]) if named else None)


@contextmanager
def reading(key: str | bytes) -> Iterator[None]:
    """Raise `UnreadableKey` for an exception that the value of ``key`` causes in the block."""
    try:
        yield
    except FAULTS as error:
        noted.add(key)
        raise UnreadableKey(f"what {_shown(key)} holds in Redis cannot be read ({type(error).__name__})") from error


def readable(
    key: str | bytes | Callable[[Any], str | bytes], parse: Callable[[Any], Value], rows: Iterable[Any]
) -> Iterator[Value]:
    """Return the readable ones of ``rows``, in order; the others are skipped, and their ``key`` is noted."""
    for row in rows:
        try:
            value = parse(row)
        except UnreadableKey:  # noted under its own key
            continue
        except FAULTS:
            noted.add(key if isinstance(key, str | bytes) else key(row))
        else:
            yield value


def readable_one(key: str | bytes, parse: Callable[[Any], Value], raw: Any) -> Value | None:
    """Parse a single value; None if there is none, or if it cannot be read (see `readable`)."""
    return next(readable(key, parse, [raw] if raw else []), None)


def _shown(key: str | bytes) -> str:
    return repr(key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else key)
