"""What a publisher does who wants its message to survive a failover of Redis."""

from __future__ import annotations

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from events.errors import TransientError
from services.store.connection import AsyncRedis, replicas_to_wait_for


async def confirmed(redis: AsyncRedis, *command: bytes | str) -> None:
    """Run the command; raises `TransientError` where too few replicas confirm it (see the client's settings)."""
    wanted = replicas_to_wait_for(redis)
    pipeline = redis.pipeline(transaction=False)
    pipeline.execute_command(*command)
    if wanted.number:
        pipeline.wait(wanted.number, int(wanted.seconds * 1000))
    answers = await pipeline.execute()
    if wanted.number and answers[-1] < wanted.number:
        raise TransientError(f"{answers[-1]} of {wanted.number} replicas have confirmed it")


def unrepeated(client: AsyncRedis) -> AsyncRedis:
    """The client, which now sends each command once: a repeated RPUSH without an id is another message."""
    client.set_retry(Retry(NoBackoff(), 0))
    return client
