"""The state that a released version leaves in Redis, kept as JSON: ``python -m tests.support.state_samples URL FILE``.

Of each key the value, and whether it expires; of a stream also its groups with what they have in hand. What belongs to
one process or expires within seconds is left out, and so are secrets.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import redis

LEFT_OUT: Final = (
    b"rq:", b"sluice:executor:", b"sluice:lease:", b"sluice:links:", b"sluice:metrics", b"sluice:role:",
    b"sluice:signals:busy:",
)  # fmt: skip
EXPIRES_SECONDS: Final = 600

Row = dict[str, Any]


def taken(client: redis.Redis) -> list[Row]:
    """What ``client`` holds."""
    keys = sorted(key for key in client.scan_iter() if not key.startswith(LEFT_OUT))
    return [
        {"key": _plain(key), "kind": (kind := client.type(key).decode()), "expires": client.pttl(key) >= 0}
        | {"value": _plain(_value(client, key, kind))}
        for key in keys
    ]


def put(client: redis.Redis, rows: list[Row]) -> None:
    """Make a database that holds nothing hold that."""
    for row in rows:
        key, value = row["key"], row["value"]
        match row["kind"]:
            case "string":
                client.set(key, _bytes(value))
            case "list":
                client.rpush(key, *map(_bytes, value))
            case "set":
                client.sadd(key, *map(_bytes, value))
            case "zset":
                client.zadd(key, {_bytes(member): score for member, score in value})
            case "hash":
                client.hset(key, mapping={_bytes(name): _bytes(one) for name, one in value})
            case "stream":
                _put_stream(client, key, value)
        if row["expires"]:
            client.expire(key, EXPIRES_SECONDS)


def _value(client: redis.Redis, key: bytes, kind: str) -> Any:
    match kind:
        case "string":
            return client.get(key)
        case "list":
            return client.lrange(key, 0, -1)
        case "set":
            return sorted(client.smembers(key))
        case "zset":
            return client.zrange(key, 0, -1, withscores=True)
        case "hash":
            return sorted(client.hgetall(key).items())
        case _:
            groups = client.xinfo_groups(key)
            return {
                "last": client.xinfo_stream(key)["last-generated-id"],
                "entries": [[position, sorted(fields.items())] for position, fields in client.xrange(key)],
                "groups": [
                    [group["name"], group["last-delivered-id"], _pending(client, key, group)] for group in groups
                ],
            }


def _pending(client: redis.Redis, key: bytes, group: dict[str, Any]) -> list[Any]:
    found = client.xpending_range(key, group["name"], "-", "+", 1000) if group["pending"] else []
    return [[one["message_id"], one["consumer"]] for one in found]


def _put_stream(client: redis.Redis, key: str, value: dict[str, Any]) -> None:
    for position, fields in value["entries"]:
        client.xadd(key, {_bytes(name): _bytes(one) for name, one in fields}, id=position)
    for name, last, pending in value["groups"]:
        client.xgroup_create(key, name, id=last, mkstream=True)
        for position, consumer in pending:
            client.xclaim(key, name, consumer, 0, [position], force=True)
    client.execute_command("XSETID", key, value["last"])


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


if __name__ == "__main__":
    with redis.Redis.from_url(sys.argv[1]) as source:
        Path(sys.argv[2]).write_text(json.dumps(taken(source), indent=1) + "\n", encoding="ascii")
