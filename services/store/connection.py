"""Connections to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, NamedTuple, TypeVar, cast

import redis
import redis.asyncio
import redis.asyncio.sentinel
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry
from typing_extensions import override

from config.settings import RedisSettings
from events.errors import TransientError
from services.store.redis_errors import translated
from services.store.state_version import look_at_version, look_at_version_blocking

RETRIES: Final = 2
"""Enough for a stale connection in the pool; longer trouble is raised to the caller."""

MOST_CONNECTIONS: Final = 4096
"""Connections of one client. redis-py's default is 100, beyond which it raises; our callers are limited elsewhere."""

AsyncRedis = redis.asyncio.Redis
AsyncPipeline = redis.asyncio.client.Pipeline
SyncRedis = redis.Redis

T = TypeVar("T")


def connect(url: str, settings: RedisSettings) -> AsyncRedis:
    """An asyncio client on ``url``; connects on first use, and no more once it is closed.

    Replies are bytes, errors those of `translated`.

    Each new connection checks the version of the state first: every command raises `ConfigError`, with nothing touched,
    where the server holds the state of a newer Sluice.

    The client also holds the number of replicas to wait for. With Sentinels in the settings the URL's host is the name
    of the primary they watch, as in ``redis://user:password@mymaster/0``. Every command is answered within
    ``command_timeout_seconds`` or fails, so a blocking one must ask for less.
    """
    if settings.sentinels:
        asked = {"retry": AsyncRetry(_pause(), RETRIES), **_to_sentinels(url, settings)}
        sentinel = redis.asyncio.Sentinel(_addresses(settings), sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
        primary = sentinel.master_for(
            redis_class=_Client,
            connection_pool_class=_PrimaryPool,
            retry=AsyncRetry(_pause(), RETRIES),
            redis_connect_func=look_at_version,
            **_to_primary(url, settings),
        )
        client = cast(_Client, primary)
    else:
        options = {**_options(url, settings), "redis_connect_func": look_at_version}
        client = cast(_Client, _Client.from_url(url, retry=AsyncRetry(_pause(), RETRIES), **options))
    client.replicas = Replicas(settings.replicas_to_wait_for, settings.command_timeout_seconds / 2)
    pool = client.connection_pool
    ours = (_Rotating,) if issubclass(pool.connection_class, redis.asyncio.SSLConnection) else (_Cancellable,)
    pool.connection_class = type(pool.connection_class.__name__, (*ours, pool.connection_class), {})
    return client


class Replicas(NamedTuple):
    """The number of replicas that must confirm a write, and the time limit for it."""

    number: int = 0
    seconds: float = 0


def replicas_to_wait_for(client: AsyncRedis) -> Replicas:
    """Return the settings for the server of ``client``; no replicas if `connect` did not make the client."""
    return client.replicas if isinstance(client, _Client) else Replicas()


async def ask_each(
    client: AsyncRedis, ask: Callable[[AsyncPipeline, T], object], of: Iterable[T]
) -> list[tuple[T, Any]]:
    """Return each of ``of`` with the response to the command that ``ask`` adds for it; one round trip."""
    asked = list(of)
    pipeline = client.pipeline(transaction=False)
    for one in asked:
        ask(pipeline, one)
    return list(zip(asked, await pipeline.execute(), strict=True))


async def execute_and_replicate(client: AsyncRedis, pipeline: AsyncPipeline) -> list[Any]:
    """Execute the pipeline, and return when the number of replicas in the settings have all of it.

    Raises `TransientError` when they do not confirm it in time: this server holds it, and a failover may lose it. The
    last command must write, even when it is repeated, or the replicas have nothing to confirm.
    """
    wanted = replicas_to_wait_for(client)
    if not wanted.number:
        return await pipeline.execute()
    pipeline.wait(wanted.number, int(wanted.seconds * 1000))
    *answers, confirmed = await pipeline.execute()
    if confirmed < wanted.number:
        msg = (
            f"Redis: {confirmed} of {wanted.number} replicas (SLUICE_REDIS__REPLICAS_TO_WAIT_FOR) have confirmed within"
            f" {wanted.seconds:g} s what a failover must not lose: it is tried again"
        )
        raise TransientError(msg)
    return answers


def connect_sync(url: str, settings: RedisSettings) -> SyncRedis:
    """Return a blocking client on ``url``, for RQ, otherwise like that of `connect`."""
    mine: dict[str, Any] = {"retry": Retry(_pause(), RETRIES), "redis_connect_func": look_at_version_blocking}
    if settings.sentinels:
        asked = {"retry": Retry(_pause(), RETRIES), **_to_sentinels(url, settings)}
        sentinel = redis.Sentinel(_addresses(settings), sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
        return cast(SyncRedis, sentinel.master_for(**mine, **_to_primary(url, settings)))  # type: ignore[no-untyped-call]
    return redis.Redis.from_url(url, **mine, **_options(url, settings))


class _Client(redis.asyncio.Redis):
    replicas = Replicas()

    @override
    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        if close_connection_pool or (close_connection_pool is None and self.auto_close_connection_pool):
            cast(type[_Cancellable], self.connection_pool.connection_class).closed = True
        await super().aclose(close_connection_pool)

    @override
    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with translated():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    @override
    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> AsyncPipeline:
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _Pipeline(AsyncPipeline):
    @override
    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        with translated():
            return await super().execute(raise_on_error)


class _Cancellable(redis.asyncio.connection.AbstractConnection):
    """A connection that can be cancelled and that reports a reset as `OSError`.

    redis-py sends through ``asyncio.wait_for``, which in Python 3.11 swallows a cancellation that comes just as the
    sending is done or has failed: a task in a loop of commands would never end. And on uvloop, sending on a connection
    that its peer has reset raises `RuntimeError` where asyncio's own loop raises `OSError`: redis-py would not connect
    again, and the role would end.

    And with its client: redis-py would connect again for a command that is under way as the client is closed, for one
    that comes later, and where it is just connecting; nobody would close that connection.
    """

    closed: ClassVar[bool] = False
    """Whether the client is; each has a class of its own."""

    @override
    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[no-untyped-call,safe-super]
        if self.closed:
            await self.disconnect(nowait=True)
            raise redis.exceptions.ConnectionError("the client is closed")

    @override
    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """Send a command; a task that was cancelled meanwhile is cancelled, even if the library swallowed it.

        The connection is closed then, because the response to the command would be read as that of the next one.
        """
        task = asyncio.current_task()
        told = task.cancelling() if task else 0
        try:
            await super().send_packed_command(command, check_health)
        except Exception as error:
            if task and task.cancelling() > told:
                raise asyncio.CancelledError from error
            if isinstance(error, RuntimeError):
                raise redis.exceptions.ConnectionError(str(error)) from error
            raise
        if task and task.cancelling() > told:
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError


class _Rotating(_Cancellable, redis.asyncio.SSLConnection):
    """Reads the TLS files each time it connects; redis-py's own class reads them only once."""

    @override
    async def _connect(self) -> None:
        self.ssl_context.context = None
        await super()._connect()


class _PrimaryPool(redis.asyncio.sentinel.SentinelConnectionPool):
    """Closes its connections to the Sentinels too: redis-py leaves them to the garbage collector."""

    @override
    async def aclose(self) -> None:
        await super().aclose()
        for sentinel in self.sentinel_manager.sentinels:
            await sentinel.aclose()


def _options(url: str, settings: RedisSettings) -> dict[str, Any]:
    """Return redis-py's options from the settings; the user, password and TLS files only if they are set."""
    options: dict[str, Any] = {
        "socket_connect_timeout": settings.connect_timeout_seconds,
        "socket_timeout": settings.command_timeout_seconds,
        "socket_keepalive": True,
        "health_check_interval": 15,
        "protocol": 2,
        "max_connections": MOST_CONNECTIONS,
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


def text(answer: bytes | str | None) -> str:
    """Return a response as text, whichever type the client's annotations give it."""
    return answer.decode() if isinstance(answer, bytes) else answer or ""
