"""Malformed requests for the HTTP API, by a seed, and what an API that is well does with them."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx

from tests.support.sources import cloudevent

KINDS: Final = (
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "application/json",
    "application/json; charset=utf-16",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/json;;;=",
    "",
)
PATHS: Final = (
    "/events",
    "/events",
    "/events",
    "/events/orders",
    "/events/nothing",
    "/signals",
    "/hooks/shop",
    "/hooks/none",
    "/signals/links",
    "/approve/x.y",
    "/events/a/replay",
    "/dead-letters/a/replay",
)
_PIECES: Final = (
    *(b"null", b"[]", b"{}", b"true", b'"', b"\\u0000", b"\\ud800", b"\xff\xfe", b"1e999", b"-0", b"9" * 400, b"NaN"),
    *(b"{" * 90, b"[" * 90, b'{"a":1,"a":2}', b'"__prefect_kind":"jinja",', b'"specversion":"1.0",'),
    *(b"\x00", b"\r\n\r\n", b"\xe2\x80\xae"),
)


@dataclass
class Bombardment:
    """What was answered."""

    statuses: Counter[int] = field(default_factory=Counter)
    taken: set[tuple[str, str]] = field(default_factory=set)
    """Source and id of the events that were answered with 202."""
    wrong: list[str] = field(default_factory=list)
    """Answers that no API that is well gives."""


async def bombard(client: httpx.AsyncClient, count: int, *, seed: int, at_once: int = 16) -> Bombardment:
    """Send ``count`` requests; those at the same time do not wait for each other."""
    found, chance, turn = Bombardment(), random.Random(seed), asyncio.Semaphore(at_once)

    async def one(path: str, body: bytes, headers: dict[str, str]) -> None:
        async with turn:
            answer = await client.post(path, content=body, headers=headers)
        found.statuses[answer.status_code] += 1
        if answer.status_code == 202 and path.startswith("/events"):
            answers = answer.json()
            found.taken |= {(event["source"], event["id"]) for event in answers.get("events", [answers])}
        kind = answer.headers.get("content-type", "")
        is_explained = kind == "application/problem+json" and {"code", "what_to_do"} <= answer.json().keys()
        if answer.status_code >= 500 or not (answer.is_success or is_explained or kind.startswith("text/html")):
            found.wrong.append(f"{answer.status_code} to {path} {headers} {body[:200]!r}: {answer.text[:200]}")

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(chance.choice(PATHS), malformed(chance, number), _headers(chance)))
    return found


async def ask_oddly(client: httpx.AsyncClient, document: Mapping[str, Any], *, seed: int, without: str) -> Bombardment:
    """Ask every listing that the OpenAPI document has for odd things, one parameter at a time."""
    found, chance = Bombardment(), random.Random(seed)
    for path, operations in document["paths"].items():
        if path.startswith(without):
            continue
        for method, operation in operations.items():
            for parameter in operation.get("parameters", ()) if method in {"get", "delete"} else ():
                for value in chance.sample(_ODD, 6):
                    in_path = parameter["in"] == "path"
                    url = path.replace("{" + parameter["name"] + "}", quote(value or "-", safe="")) if in_path else path
                    url = re.sub(r"\{[^}]*\}", "x", url)
                    params = {} if in_path else {parameter["name"]: value}
                    answer = await client.request(method, url, params=params)
                    found.statuses[answer.status_code] += 1
                    explained = "what_to_do" in answer.text or path.startswith("/approve")  # which is a page
                    if answer.status_code >= 500 or (answer.is_error and not explained):
                        found.wrong.append(f"{answer.status_code} to {method} {url} {params}: {answer.text[:200]}")
    return found


_ODD: Final = (
    *("", "x", "0", "-1", "1e999", "NaN", "null", "true", "%", "%00", "\0", "..", "*", "[", "{a,b}" * 40, "a" * 3000),
    *(
        "2026-01-01",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59+23:59",
        "Wzk5OTk5OTk5OTk5OTk5OTk5XQ",
        "W10",
        "WzEsIlwwIl0",
    ),
    *("\u202e", "\N{GRINNING FACE}", "'; --", "9" * 400),
)


def malformed(chance: random.Random, number: int) -> bytes:
    """A body that is nearly right, or not at all."""
    raw: bytes | bytearray = chance.choice(
        (
            cloudevent(f"bad-{number}", data=_value(chance, 3)),
            cloudevent(f"bad-{number}", source=_value(chance, 1), time=_value(chance, 1), subject=_value(chance, 1)),
            b"[" + cloudevent(f"bad-{number}-1") + b"," + cloudevent(f"bad-{number}-2", type=_value(chance, 1)) + b"]",
            json.dumps(
                {"key": _value(chance, 1), "input": _value(chance, 2), "ttl_seconds": _value(chance, 1)}
            ).encode(),
            json.dumps(_value(chance, 4)).encode(),
            b"",
        )
    )
    raw = bytearray(raw)
    for _ in range(chance.choice((0, 0, 0, 1, 3))):
        at = chance.randrange(len(raw) + 1)
        match chance.randrange(4):
            case 0:
                raw[at : at + chance.randrange(8)] = b""
            case 1:
                raw[at:at] = chance.choice(_PIECES)
            case 2:
                raw[at:at] = chance.randbytes(chance.randrange(6))
            case _:
                del raw[at:]
    return bytes(raw)


def _headers(chance: random.Random) -> dict[str, str]:
    headers = {"content-type": chance.choice((*KINDS[:3], *KINDS))}
    if chance.random() < 0.2:
        names = (
            "ce-id",
            "ce-source",
            "ce-type",
            "ce-specversion",
            "ce-time",
            "ce-data",
            "ce-a b",
            "ce-",
            "ce-dataschema",
        )
        values = ("1.0", "x", "%00", "%zz", '"', "a" * 500, "tomorrow", "%F0%9F%98%80")
        headers |= {chance.choice(names).replace(" ", "-"): chance.choice(values) for _ in range(chance.randrange(5))}
    return {name: value for name, value in headers.items() if value}


def _value(chance: random.Random, depth: int) -> Any:
    plain = (
        None,
        True,
        -1,
        0.5,
        2**64,
        10**30,
        "",
        "x",
        "\0",
        "\u202e",
        "é" * 40,
        "a" * 300,
        "2026-01-01",
        "1.0",
        {},
        [],
    )
    if depth == 0 or chance.random() < 0.5:
        return chance.choice(plain if chance.random() < 0.3 else ("x", 1, True, None))
    if chance.random() < 0.5:
        return [_value(chance, depth - 1) for _ in range(chance.randrange(4))]
    names = ("a", "", "\0", "__prefect_kind", "id", "approved", "é")
    return {chance.choice(names): _value(chance, depth - 1) for _ in range(chance.randrange(4))}
