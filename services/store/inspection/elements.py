"""The elements of a key of any type, read in pages."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from services.store.connection import AsyncRedis, translated

PAGE: Final = 500
"""How many elements are read at once."""


@dataclass(frozen=True, slots=True)
class Element:
    """``name`` is what takes it out, ``parts`` what its key's check is given, ``raw`` what the letter keeps."""

    name: bytes
    parts: tuple[Any, ...]
    raw: bytes
    value: bytes = b""


async def elements(redis: AsyncRedis, name: bytes, kind: str) -> AsyncIterator[Element]:
    """Every element of a key, in pages; a key that goes meanwhile has none."""
    if kind not in _PAGES:
        return  # a type that only a module of the server knows
    async for page in _PAGES[kind](redis, name):
        for element in page:
            yield element


async def _of_list(redis: AsyncRedis, name: bytes) -> AsyncIterator[list[Element]]:
    start = 0
    while True:
        with translated():
            rows: Any = await cast(Awaitable[Any], redis.lrange(name, start, start + PAGE - 1))
        yield [Element(row, (row,), row) for row in rows]
        if len(rows) < PAGE:
            return
        start += PAGE


async def _of_set(redis: AsyncRedis, name: bytes) -> AsyncIterator[list[Element]]:
    cursor = 0
    while True:
        with translated():
            answer: Any = await redis.sscan(name, cursor, count=PAGE)
        cursor, rows = answer
        yield [Element(row, (row,), row) for row in rows]
        if not cursor:
            return


async def _of_zset(redis: AsyncRedis, name: bytes) -> AsyncIterator[list[Element]]:
    cursor = 0
    while True:
        with translated():
            answer: Any = await redis.zscan(name, cursor, count=PAGE)
        cursor, rows = answer
        yield [Element(row, (row, score), row + f" {score}".encode()) for row, score in rows]
        if not cursor:
            return


async def _of_hash(redis: AsyncRedis, name: bytes) -> AsyncIterator[list[Element]]:
    cursor = 0
    while True:
        with translated():
            answer: Any = await redis.hscan(name, cursor, count=PAGE)
        cursor, rows = answer
        yield [Element(field, (field, value), field + b"\n" + value, value) for field, value in rows.items()]
        if not cursor:
            return


async def _of_stream(redis: AsyncRedis, name: bytes) -> AsyncIterator[list[Element]]:
    start = "-"
    while True:
        with translated():
            rows: Any = await redis.xrange(name, min=start, count=PAGE)
        yield [Element(entry, (fields,), raw_of(fields)) for entry, fields in rows]
        if len(rows) < PAGE:
            return
        start = f"({rows[-1][0].decode()}"


async def _of_string(redis: AsyncRedis, name: bytes) -> AsyncIterator[list[Element]]:
    with translated():
        value: Any = await redis.get(name)
    yield [Element(value, (value,), value)] if value is not None else []


_PAGES: Final[Mapping[str, Callable[[AsyncRedis, bytes], AsyncIterator[list[Element]]]]] = {
    "list": _of_list,
    "set": _of_set,
    "zset": _of_zset,
    "hash": _of_hash,
    "stream": _of_stream,
    "string": _of_string,
}


def raw_of(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return json.dumps({_text(field): _text(raw) for field, raw in value.items()}, ensure_ascii=False).encode()


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw).decode()
