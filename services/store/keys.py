"""Every key of Redis that Sluice uses: which type it has, what it holds, how long it lives, and how it is checked.

The modules that own keys declare them in a tuple ``KEYS``; `services.operations.upkeep.inspector` gathers them.
Quarantine, the table in docs/redis-keys.md and the test that writes garbage under each key use this one list.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from services.store.unreadable import FAULTS

# What waits. Its owners are elsewhere; whoever only counts it, as each `sluice status` does, need not import them.

DEAD: Final = "sluice:dead"
"""The ids of all dead letters, by the time (ms) of the last failure."""

JOURNAL: Final = "sluice:journal"
ROUTER_GROUP: Final = "router"

DISPATCH_QUEUES: Final = "sluice:dispatch-queues"
"""The names of the dispatch queues that are not empty."""

DISPATCH_QUEUE: Final = "sluice:dispatch-queue:"
"""Prefix of a dispatch queue's stream; the queue's name follows."""

SIGNAL: Final = "sluice:signal:"
"""Prefix of a signal's record; the signal's id follows."""

BUFFERED: Final = "sluice:signals:buffered"
"""The buffered signals by the time (ms) at which they expire."""

WAITING_SINCE: Final = "sluice:signals:waiting-since"
"""The runs that are known to wait, by when their wait began (ms)."""

Kind = Literal["string", "hash", "list", "set", "zset", "stream", "any"]

LAST_MS: Final = 253_402_300_799_000
"""The last moment that a datetime can hold."""

_POSITION: Final = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)
_QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}:[^/]+/.+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Key:
    """One key, or a family of keys whose name has a part of its own, written ``*``.

    ``check`` gets one element and raises if the owner could not have written it: the value of a string, a member of a
    list or set, ``(field, value)`` of a hash, ``(member, score)`` of a sorted set, the fields of a stream's entry. With
    ``whole``, a hash is one record, and ``check`` gets all of it.
    """

    pattern: str
    kind: Kind
    holds: str
    life: str
    check: Callable[..., object] | None = None
    whole: bool = False

    @property
    def is_family(self) -> bool:
        """Whether the pattern stands for many keys."""
        return "*" in self.pattern


class KeyList:
    """All declared keys; if two patterns match a key, the longer one counts."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = sorted(keys, key=lambda key: (-len(key.pattern.replace("*", "")), key.pattern))
        self._one_of = re.compile(b"|".join(b"(%s)" % _expression(key.pattern) for key in self._keys), re.DOTALL)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def of(self, name: bytes) -> Key | None:
        """Return the declaration of the key ``name``."""
        found = self._one_of.fullmatch(name)
        return self._keys[found.lastindex - 1] if found is not None and found.lastindex else None


def _expression(pattern: str) -> bytes:
    return b".*".join(re.escape(part.encode()) for part in pattern.split("*"))


def is_text(raw: bytes | str) -> str:
    """UTF-8."""
    return raw.decode() if isinstance(raw, bytes) else raw


def is_number(raw: bytes) -> int:
    """A whole number of 64 bits as Redis writes it; Redis can increment no other."""
    text = raw.decode("ascii")
    if not re.fullmatch(r"0|-?[1-9]\d{0,17}", text):
        raise ValueError("not a whole number")
    return int(text)


def is_position(raw: bytes | str) -> str:
    """A position in a stream."""
    text = raw.decode("ascii") if isinstance(raw, bytes) else raw
    if not _POSITION.fullmatch(text) or int(text.partition("-")[0]) > LAST_MS:
        raise ValueError("not a position in a stream")
    return text


def position_seconds(position: str) -> float:
    """When the entry at ``position`` was put in, by the server's clock, in seconds since the epoch."""
    return int(position.partition("-")[0]) / 1000


def is_queue_name(raw: bytes | str) -> str:
    """The name of a dispatch queue."""
    name = is_text(raw)
    if not _QUEUE_NAME.fullmatch(name):
        raise ValueError("not the name of a queue")
    return name


def is_uuid(raw: bytes | str) -> str:
    """The id of a run or a state."""
    text = raw.decode("ascii") if isinstance(raw, bytes) else raw
    uuid.UUID(text)
    return text


def is_object(raw: bytes) -> dict[str, Any]:
    """A JSON object."""
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    return value


def scored(check: Callable[[bytes], object] = is_text) -> Callable[[bytes, float], None]:
    """A member of a sorted set with a finite score."""

    def checked(member: bytes, score: float) -> None:
        check(member)
        if not math.isfinite(score):
            raise ValueError("the score is not finite")

    return checked


def pair(field: Callable[[bytes], object], value: Callable[[bytes], object]) -> Callable[[bytes, bytes], None]:
    """A field of a hash and its value."""

    def checked(name: bytes, raw: bytes) -> None:
        field(name)
        value(raw)

    return checked


def is_well(declared: Key, value: Any, *, page: int) -> bool:
    """Whether the content read from a key is as declared; of a list only the first ``page`` elements were read."""
    check = cast(Callable[..., object], declared.check)
    if isinstance(value, Exception) or (declared.kind == "list" and len(value) > page):
        return False
    try:
        for element in value if declared.kind == "list" else [] if value is None or value == {} else [value]:
            check(element)
    except FAULTS:
        return False
    return True
