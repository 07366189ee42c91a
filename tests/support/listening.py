"""Listeners in a process of their own: ``python -m tests.support.listening URL NAME SOURCE-JSON [SETTINGS-JSON]``.

Prints one JSON line whenever the parts' status changes. The journal behind them is the real one.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from config.logs import configure_logging
from config.settings import JournalSettings, ListenerSettings, LogSettings, RedisSettings
from config.sources import RedisSource
from events.event import Event
from events.untrusted_json import Limits
from services.listeners.message_intake import event_intake
from services.listeners.redis.source import redis_listeners
from services.store.connection import connect
from services.store.dead_letters import DeadLetters
from services.store.events.journal import Appended, Journal


async def main(url: str, name: str, source: str, settings: str = "{}") -> None:
    configure_logging(LogSettings())
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    redis = connect(url, RedisSettings())
    journal = Journal(redis, JournalSettings())
    listed = RedisSource.model_validate_json(source)

    async def emit(events: Sequence[Event]) -> Sequence[Appended]:
        return await journal.append(events, received=datetime.now(UTC).isoformat())

    parts = redis_listeners(
        name,
        listed,
        intake=event_intake(
            listener=f"redis:{name}", emit=emit, dead=DeadLetters(redis), limits=Limits(), default_type=listed.type
        ),
        redis=redis,
        connect=lambda: connect(url, RedisSettings()),
        settings=ListenerSettings.model_validate_json(settings),
    )
    tasks = [asyncio.create_task(part.run()) for part in parts.values()]
    said = ""
    while not stopped.is_set():
        now = json.dumps({key: dict(part.status()) for key, part in parts.items()})
        if now != said:
            sys.stdout.write(now + "\n")
            sys.stdout.flush()
            said = now
        await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=5)
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
