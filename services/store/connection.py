"""Connections to Redis, and the translation of its errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import redis
import redis.asyncio
import redis.asyncio.sentinel
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry
from typing_extensions import override

from config.settings import RedisSettings
from events.errors import Backpressure, TransientError

RETRIES: Final = 2
"""Bridges a connection that has gone stale in the pool. Longer trouble is for the caller to know of."""

AsyncRedis = redis.asyncio.Redis
SyncRedis = redis.Redis

EVEN_WHEN_FULL: Final = "#!lua flags=allow-oom\n"
"""The first line of a script that must run when ``maxmemory`` is reached: it sees through what was accepted."""


def connect(url: str, settings: RedisSettings) -> AsyncRedis:
    """An asyncio client on ``url``; connects on first use. Answers are bytes.

    With Sentinels in the settings the URL's host is the name of the primary they watch, as in
    ``redis://user:password@mymaster/0``. Every command is answered within ``command_timeout_seconds`` or fails, so a
    blocking one must ask for less.
    """
    if settings.sentinels:
        asked = {"retry": AsyncRetry(_pause(), RETRIES), **_to_sentinels(url, settings)}
        sentinel = redis.asyncio.Sentinel(_addresses(settings), sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
        primary = sentinel.master_for(
            retry=AsyncRetry(_pause(), RETRIES), connection_pool_class=_PrimaryPool, **_to_primary(url, settings)
        )
        client = cast(AsyncRedis, primary)
    else:
        client = redis.asyncio.Redis.from_url(url, retry=AsyncRetry(_pause(), RETRIES), **_options(url, settings))
    pool = client.connection_pool
    pool.connection_class = type(pool.connection_class.__name__, (_Cancellable, pool.connection_class), {})
    return client


def connect_sync(url: str, settings: RedisSettings) -> SyncRedis:
    """A blocking client on ``url``, for RQ; connects on first use. Answers are bytes."""
    if settings.sentinels:
        asked = {"retry": Retry(_pause(), RETRIES), **_to_sentinels(url, settings)}
        sentinel = redis.Sentinel(_addresses(settings), sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
        return cast(SyncRedis, sentinel.master_for(retry=Retry(_pause(), RETRIES), **_to_primary(url, settings)))  # type: ignore[no-untyped-call]
    return redis.Redis.from_url(url, retry=Retry(_pause(), RETRIES), **_options(url, settings))


class _Cancellable(redis.asyncio.connection.AbstractConnection):
    """Ends with the task that uses it.

    redis-py sends through ``asyncio.wait_for``, which in Python 3.11 swallows a cancellation that comes just as the
    sending is done or has failed: a task in a loop of commands would never end.
    """

    @override
    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        task = asyncio.current_task()
        told = task.cancelling() if task else 0
        try:
            await super().send_packed_command(command, check_health)
        except Exception as error:
            if task and task.cancelling() > told:
                raise asyncio.CancelledError from error
            raise
        if task and task.cancelling() > told:
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError


class _PrimaryPool(redis.asyncio.sentinel.SentinelConnectionPool):
    """Closes its connections to the Sentinels too: redis-py leaves them to the garbage collector."""

    @override
    async def aclose(self) -> None:
        await super().aclose()
        for sentinel in self.sentinel_manager.sentinels:
            await sentinel.aclose()


@contextmanager
def translated() -> Iterator[None]:
    """Raise Redis' errors as ours: a full server is `Backpressure`, one out of reach is `TransientError`."""
    try:
        yield
    except OutOfMemoryError as error:
        msg = "Redis has reached its maxmemory: nothing new is accepted until there is room"
        raise Backpressure(msg) from error
    except (BusyLoadingError, ReadOnlyError) as error:
        raise TransientError(f"Redis is not ready: {error}") from error
    except ResponseError as error:
        if str(error).startswith("MISCONF"):
            raise Backpressure(f"Redis cannot write to its disk: {error}") from error
        raise
    except (RedisError, OSError) as error:
        raise TransientError(f"Redis is out of reach: {error}") from error


def _options(url: str, settings: RedisSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_connect_timeout": settings.connect_timeout_seconds,
        "socket_timeout": settings.command_timeout_seconds,
        "socket_keepalive": True,
        "health_check_interval": 15,
        "protocol": 2,
    }
    if settings.username:
        options["username"] = settings.username
    if settings.password:
        options["password"] = settings.password
    if url.startswith("rediss://"):
        files = {
            "ssl_ca_certs": settings.ca_file,
            "ssl_certfile": settings.certificate_file,
            "ssl_keyfile": settings.key_file,
        }
        options |= {name: str(file) for name, file in files.items() if file is not None}
    return options


def _pause() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(base=0.05, cap=0.5)


def _to_primary(url: str, settings: RedisSettings) -> dict[str, Any]:
    told = dict(parse_url(url))
    name = told.pop("host", "")
    told.pop("port", None)
    secure = told.pop("connection_class", None) is not None
    options = {**_options(url, settings), **told}
    return {"service_name": name, **options, **({"ssl": True} if secure else {})}


def _to_sentinels(url: str, settings: RedisSettings) -> dict[str, Any]:
    options = _options(url, settings)
    options.pop("username", None)
    options.pop("password", None)
    if settings.sentinel_password:
        options["password"] = settings.sentinel_password
    return {**options, **({"ssl": True} if url.startswith("rediss://") else {})}


def _addresses(settings: RedisSettings) -> list[tuple[str, int]]:
    pairs = (address.rpartition(":") for address in settings.sentinels)
    return [(host, int(port)) for host, _, port in pairs]
