"""Connections to Redis, and the translation of its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import redis
import redis.asyncio
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from config.settings import RedisSettings
from events.errors import Backpressure, TransientError

AsyncRedis = redis.asyncio.Redis
SyncRedis = redis.Redis


def connect(url: str, settings: RedisSettings) -> AsyncRedis:
    """An asyncio client on ``url``; connects on first use. Answers are bytes."""
    if settings.sentinels:
        sentinel = redis.asyncio.Sentinel(_addresses(settings), **_options(settings))  # type: ignore[no-untyped-call]
        return cast(AsyncRedis, sentinel.master_for(_primary(url), **_options(settings)))
    return redis.asyncio.Redis.from_url(url, **_options(settings))


def connect_sync(url: str, settings: RedisSettings) -> SyncRedis:
    """A blocking client on ``url``, for RQ; connects on first use. Answers are bytes."""
    if settings.sentinels:
        sentinel = redis.Sentinel(_addresses(settings), **_options(settings))  # type: ignore[no-untyped-call]
        return cast(SyncRedis, sentinel.master_for(_primary(url), **_options(settings)))  # type: ignore[no-untyped-call]
    return redis.Redis.from_url(url, **_options(settings))


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


def _options(settings: RedisSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_connect_timeout": settings.connect_timeout_seconds,
        "socket_keepalive": True,
        "health_check_interval": 15,
        "protocol": 2,
    }
    if settings.password:
        options["password"] = settings.password
    if settings.ca_file:
        options["ssl_ca_certs"] = str(settings.ca_file)
    return options


def _addresses(settings: RedisSettings) -> list[tuple[str, int]]:
    pairs = (address.rpartition(":") for address in settings.sentinels)
    return [(host, int(port)) for host, _, port in pairs]


def _primary(url: str) -> str:
    return url.split("://", 1)[-1].split("/", 1)[0].rpartition("@")[-1].partition(":")[0]
