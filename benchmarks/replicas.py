"""What a failover of Redis loses of the accepted events, and what it costs to lose nothing.

``python -m benchmarks.replicas [--seconds S]``. A primary and a replica, both embedded Valkeys on this machine; eight
writers that append one event at a time. After ``--seconds`` the replica hangs, two seconds later the primary is killed
and the replica becomes the primary: what was accepted and is not on it is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from config.settings import JournalSettings, RedisSettings
from events.errors import SluiceError
from events.event import Event
from services.store.connection import AsyncRedis, connect
from services.store.events.journal import Journal
from services.store.events.known_events import KNOWN
from tests.support.valkeys import OwnValkey, own_valkey

WRITERS = 8
HUNG_SECONDS = 2.0


async def _write(redis: AsyncRedis, writer: int, accepted: dict[str, float]) -> None:
    """Append until it fails; each accepted event's identity with the seconds that it took."""
    journal, number = Journal(redis, JournalSettings()), 0
    while True:
        number += 1
        event = Event(id=f"{writer}-{number}", source="bench", type="bench", time=datetime.now(UTC), data={"n": number})
        began = time.monotonic()
        try:
            await journal.append([event], received="now")
        except SluiceError:
            await asyncio.sleep(0.05)
            continue
        accepted[event.identity] = time.monotonic() - began


async def _failover(folder: Path, seconds: float, *, wait_for: int, required: int) -> str:
    with own_valkey(folder / "a") as first, own_valkey(folder / "b") as second:
        direct, replica = connect(first.url, RedisSettings()), connect(second.url, RedisSettings())
        await _replicate(direct, replica, first)
        await direct.config_set("min-replicas-to-write", required)
        await direct.config_set("min-replicas-max-lag", 1)
        redis = connect(first.url, RedisSettings(replicas_to_wait_for=wait_for))
        accepted: dict[str, float] = {}
        writers = [asyncio.create_task(_write(redis, writer, accepted)) for writer in range(WRITERS)]
        await asyncio.sleep(seconds)
        milliseconds = sorted(1000 * took for took in accepted.values())
        rate = len(accepted) / seconds
        second.hang()
        await asyncio.sleep(HUNG_SECONDS)
        first.kill()
        for task in writers:
            task.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        second.wake()
        await replica.execute_command("REPLICAOF", "NO", "ONE")
        held = [await replica.exists(KNOWN + identity) for identity in accepted]
        for client in (direct, replica, redis):
            await client.aclose()
    p50, p99 = statistics.median(milliseconds), milliseconds[int(len(milliseconds) * 0.99)]
    lost = held.count(0)
    return f"{rate:8.0f} {p50:7.1f} {p99:7.1f} {len(accepted):9d} {lost:6d}"


async def _replicate(primary: AsyncRedis, replica: AsyncRedis, first: OwnValkey) -> None:
    await primary.config_set("repl-diskless-sync-delay", 0)
    await replica.replicaof("127.0.0.1", first.port)
    while (await replica.info("replication"))["master_link_status"] != "up":
        await asyncio.sleep(0.05)


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    seconds = parser.parse_args().seconds
    print(f"{WRITERS} writers, the replica hangs {HUNG_SECONDS:g} s before the primary is killed")
    print(f"{'':46s} {'events/s':>8s} {'p50 ms':>7s} {'p99 ms':>7s} {'accepted':>9s} {'lost':>6s}")
    cases = {
        "neither": (0, 0),
        "min-replicas-to-write 1, max-lag 1 s": (0, 1),
        "SLUICE_REDIS__REPLICAS_TO_WAIT_FOR=1": (1, 0),
    }
    for name, (wait_for, required) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            line = await _failover(Path(folder), seconds, wait_for=wait_for, required=required)
        print(f"{name:46.46s} {line}", flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
