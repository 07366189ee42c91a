"""Reads the elements of a key of any type, in pages."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from services.store.connection import AsyncRedis

PAGE: Final = 500
"""Number of elements that are read at once."""


@dataclass(frozen=True, slots=True)
class Element:
    """``name`` is used to remove it, ``parts`` are given to its key's check, ``raw`` is kept in the letter."""

    name: bytes
    parts: tuple[Any, ...]
    raw: bytes
    value: bytes = b""


_FIRST: Final[Mapping[str, Any]] = {"list": 0, "set": 0, "zset": 0, "hash": 0, "stream": "-", "string": 0}
"""The first cursor for each type of key; types of server modules are missing."""


async def elements(redis: AsyncRedis, name: bytes, kind: str) -> AsyncIterator[Element]:
    """Yield every element of a key of the type ``kind``, in pages; a key that is deleted meanwhile has none."""
    at = _FIRST.get(kind)
    while at is not None:
        at, page = await _page(redis, name, kind, at)
        for element in page:
            yield element


async def _page(redis: AsyncRedis, name: bytes, kind: str, at: Any) -> tuple[Any, list[Element]]:
    """Return the elements from ``at`` on, and the next cursor: None after the last page."""
    after: Any
    rows: Any
    match kind:
        case "list":
            rows = await cast(Awaitable[Any], redis.lrange(name, at, at + PAGE - 1))
            after, page = at + PAGE, [Element(row, (row,), row) for row in rows]
        case "stream":
            rows = await redis.xrange(name, min=at, count=PAGE)
            after = f"({rows[-1][0].decode()}" if rows else None
            page = [Element(entry, (fields,), raw_of(fields)) for entry, fields in rows]
        case "set":
            after, rows = await redis.sscan(name, at, count=PAGE)
            return after or None, [Element(row, (row,), row) for row in rows]
        case "zset":
            after, rows = await redis.zscan(name, at, count=PAGE)
            return after or None, [Element(row, (row, score), row + f" {score}".encode()) for row, score in rows]
        case "hash":
            after, rows = await redis.hscan(name, at, count=PAGE)
            return after or None, [
                Element(field, (field, value), field + b"\n" + value, value) for field, value in rows.items()
            ]
        case _:
            value: Any = await redis.get(name)
            return None, [Element(value, (value,), value)] if value is not None else []
    return after if len(rows) == PAGE else None, page


def raw_of(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return json.dumps({_text(field): _text(raw) for field, raw in value.items()}, ensure_ascii=False).encode()


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw).decode()
