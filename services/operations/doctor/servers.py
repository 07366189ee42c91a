"""Checks of the servers: whether they answer, keep their data, and agree on the time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from config.settings import RedisSettings
from events.errors import Backpressure, TransientError
from events.redact import redacted
from services.common.prefect_probe import ask_prefect, prefect_problem
from services.common.prefect_versions import TESTED, untested
from services.operations.doctor.finding import Finding, fail, ok, warn
from services.store.connection import connect

_OLDEST_REDIS: Final = (6, 2)
"""Version of Redis that the scripts and the stream commands need."""

_APART: Final = 2.0
"""Seconds by which two clocks may differ; Prefect reports whole seconds."""

_FAR_APART: Final = 30.0
"""Seconds after which retention, deadlines and the order of steps go wrong."""

_NEARLY_FULL: Final = 0.8


async def check_redis(url: str | None, settings: RedisSettings) -> AsyncIterator[Finding]:
    """Address, version, persistence, eviction, memory and clock."""
    if url is None:
        yield warn("redis", "none runs on this home, and none is named", "`sluice up`, or set SLUICE_REDIS_URL")
        return
    where = redacted(url)
    client = connect(url, settings)
    try:
        found: dict[str, Any] = await client.info()
        before = time.time()
        seconds, microseconds = await client.time()
        after = time.time()
    except (TransientError, Backpressure) as error:
        fix = "start it, or correct SLUICE_REDIS_URL, SLUICE_REDIS__USERNAME and SLUICE_REDIS__PASSWORD"
        yield fail("redis", f"{where}: {redacted(str(error))}", fix)
        return
    finally:
        await client.aclose()
    for finding in (
        *_redis_findings(found, where),
        _clock("Redis", seconds + microseconds / 1e6, (before + after) / 2),
    ):
        yield finding


def check_prefect(url: str | None, *, auth: str | None, home: Path, own: bool) -> Iterator[Finding]:
    """Address, version, database and clock; ``own`` is whether the home's `sluice up` runs the server."""
    if url is None:
        yield warn("prefect", "none runs on this home, and none is named", "`sluice up`, or set PREFECT_API_URL")
        return
    where = redacted(url)
    before = time.time()
    answer = ask_prefect(url, auth_string=auth)
    after = time.time()
    if isinstance(answer, str) or answer.status != HTTPStatus.OK:
        why = prefect_problem(url, auth_string=auth)
        yield fail("prefect", f"{where} {why}", "start it, or correct PREFECT_API_URL and PREFECT_API_AUTH_STRING")
        return
    version = answer.text.strip('"')
    said = f"{where}, version {version}"
    if untested(version):
        yield warn("prefect", f"{said}, which Sluice is not tested with", f"use a server of {TESTED}")
    else:
        yield ok("prefect", said)
    if answer.at is not None:  # cut to the second: half a second later on average
        yield _clock("Prefect", answer.at + 0.5, (before + after) / 2)
    yield from _database(home, own=own)


def _redis_findings(found: Mapping[str, Any], where: str) -> Iterator[Finding]:
    """Yield what Redis says of its version, persistence, eviction and memory."""
    server = "Valkey" if "valkey_version" in found else "Redis"
    version = str(found.get("valkey_version") or found.get("redis_version") or "0.0")
    numbers = tuple(int(number) for number in version.split(".")[:2] if number.isdecimal())
    if numbers < _OLDEST_REDIS:
        yield fail("redis", f"{where}: {server} {version}", "use Redis 6.2 or later, or Valkey")
    else:
        yield ok("redis", f"{where}: {server} {version}")
    written = found.get("aof_last_write_status", "ok"), found.get("rdb_last_bgsave_status", "ok")
    if not found.get("aof_enabled"):
        fix = "start it with --appendonly yes"
        yield warn("persistence", "no append-only file: events and signals are lost when it ends", fix)
    elif written != ("ok", "ok"):
        yield fail("persistence", "its last write to disk failed", "look at its log and at the room on its disk")
    else:
        yield ok("persistence", "append-only file")
    policy = found.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        yield ok("eviction", "none: a full Redis refuses, and loses nothing")
    else:
        fix = "start it with --maxmemory-policy noeviction"
        yield fail("eviction", f"{policy}: when its memory is full, events and signals are dropped", fix)
    used, limit = int(found.get("used_memory", 0)), int(found.get("maxmemory", 0))
    said = f"{used / 2**20:.0f} MiB used" + (f" of {limit / 2**20:.0f}" if limit else ", without a limit")
    if limit and used > limit * _NEARLY_FULL:
        yield warn("memory", said, "raise maxmemory, or shorten what is kept (journal and history, docs/operations.md)")
    else:
        yield ok("memory", said)


def _clock(server: str, there: float, here: float) -> Finding:
    apart = there - here
    said = f"that of {server} is {abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
    fix = "have both machines keep time by NTP (timedatectl set-ntp true)"
    if abs(apart) > _FAR_APART:
        return fail("clock", said, fix)
    return warn("clock", said, fix) if abs(apart) > _APART else ok("clock", f"as that of {server}, to {_APART:g} s")


def _database(home: Path, *, own: bool) -> Iterator[Finding]:
    file = home / "prefect" / "prefect.db"
    if own and file.is_file():
        yield ok("database", f"Prefect keeps its runs in {file} (SQLite, {file.stat().st_size / 2**20:.0f} MiB)")
    elif not own:
        yield ok("database", "that of a Prefect server which is not ours; PostgreSQL is what docs/scaling.md advises")
