"""Notes the keys in Redis that cannot be read, wherever one is met, so that the inspector of a role sets it aside.

Whoever can write to Redis can put anything under any key. A reader that comes across such a thing goes on without it
(`readable`) or asks for the same again later (`reading`, which raises `UnreadableKey`); either way the key is noted
here for `services.store.inspection.key_inspection`, which keeps it as a dead letter.
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
"""What reading garbage raises. A UnicodeDecodeError and pydantic's errors are ValueErrors."""

_NAMED_KEY: Final = re.compile(r"\bkey=([^\s,]+)")


class UnreadableKey(TransientError):
    """Something in Redis is not what Sluice put there. It is set aside soon, and then the same call works again."""


class Noted:
    """The keys in which this process met something unreadable since they were last taken; safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: set[bytes] = set()
        self._everything = False

    def add(self, key: str | bytes | None) -> None:
        """Note ``key``; None: it is not known which one it is."""
        with self._lock:
            if key is None:
                self._everything = True
            else:
                self._keys.add(key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key)

    def take(self) -> tuple[set[bytes], bool]:
        """The keys, and whether one is unknown; they are forgotten here."""
        with self._lock:
            keys, everything = self._keys, self._everything
            self._keys, self._everything = set(), False
        return keys, everything


noted: Final = Noted()
"""This process's."""


def note_error(message: str) -> None:
    """Note the key that an error of Redis names, as `lua/shared/expect.lua` does; any key if it names none."""
    named = _NAMED_KEY.search(message)
    noted.add(unquote_to_bytes(named[1]) if named else None)


@contextmanager
def reading(key: str | bytes) -> Iterator[None]:
    """Raise `UnreadableKey` for whatever the value of ``key`` makes its reader raise."""
    try:
        yield
    except FAULTS as error:
        noted.add(key)
        raise UnreadableKey(f"what {_shown(key)} holds in Redis cannot be read ({type(error).__name__})") from error


def readable(
    key: str | bytes | Callable[[Any], str | bytes], parse: Callable[[Any], Value], rows: Iterable[Any]
) -> Iterator[Value]:
    """What can be read of ``rows``, in order; the others are passed over, and their ``key`` is noted."""
    for row in rows:
        try:
            value = parse(row)
        except UnreadableKey:  # and noted under a key of its own
            continue
        except FAULTS:
            noted.add(key if isinstance(key, str | bytes) else key(row))
        else:
            yield value


def readable_one(key: str | bytes, parse: Callable[[Any], Value], raw: Any) -> Value | None:
    """What a value says that was read alone; None where there is none, and where it cannot be read (see `readable`)."""
    return next(readable(key, parse, [raw] if raw else []), None)


def _shown(key: str | bytes) -> str:
    return repr(key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else key)
