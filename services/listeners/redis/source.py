"""Builds the listeners of a Redis source of the project file."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

from config.settings import ListenerSettings
from config.sources import RedisSource
from services.listeners.message_intake import MessageIntake
from services.listeners.redis.lists import ListListener
from services.listeners.redis.pubsub import PubSubListener
from services.listeners.redis.stream import StreamListener
from services.store.connection import AsyncRedis
from services.store.lease import Lease

RedisListener: TypeAlias = PubSubListener | StreamListener | ListListener


def redis_listeners(
    name: str,
    source: RedisSource,
    *,
    intake: MessageIntake[Any],
    redis: AsyncRedis,
    connect: Callable[[], AsyncRedis],
    settings: ListenerSettings,
) -> dict[str, RedisListener]:
    """Return the listeners of one source by the names of their parts; all of them pass messages to ``intake``.

    ``redis`` is shared; ``connect`` opens a separate client for a subscription.
    """
    listener = listener_name(name)
    parts: dict[str, RedisListener] = {}
    if source.channel:
        parts[f"{listener}:channel"] = PubSubListener(
            listener=listener,
            connect=connect,
            lease=Lease(redis, f"pubsub:{name}", ttl_seconds=settings.lease_seconds, confirmed=True),
            channel=source.channel,
            pattern=source.pattern,
            sink=intake.accept,
            identified=intake.identifies,
            settings=settings,
        )
    if source.stream:
        parts[f"{listener}:stream"] = StreamListener(
            listener=listener,
            redis=redis,
            stream=source.stream,
            sink=intake.accept,
            settings=settings,
            consumer=_consumer(),
            trim_after_seconds=source.trim_after_seconds,
        )
    if source.list:
        parts[f"{listener}:list"] = ListListener(
            listener=listener,
            redis=redis,
            list_key=source.list,
            side=source.pop,
            sink=intake.accept,
            settings=settings,
            consumer=_consumer(),
        )
    return parts


def listener_name(name: str) -> str:
    """Return the listener's name in events of the source ``name``, which is also the event source of plain JSON."""
    return f"redis:{name}"


def _consumer() -> str:
    # A pid may be reused, on this host or in another container of the same name.
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
