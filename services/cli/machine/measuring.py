"""Measures stored data: in Redis, in the home, in the archive folders of the watches; and the space on the disks."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from config.project import Project
from config.settings import Settings
from services.store.connection import AsyncRedis, text
from services.store.events.finished_events import FINISHED
from services.store.events.journal import STREAM
from services.store.keys import DEAD, position_seconds
from services.store.unreadable import reading

_SAMPLED: Final = 50
"""Number of keys of each kind whose memory is measured; the others are assumed to be as large on average."""

# The first family with a prefix of the key's name counts; the empty prefix matches all others.
_FAMILIES: Final = (
    ("journal", (STREAM,)),
    ("finished events", (FINISHED,)),
    ("dead letters and quarantine", (DEAD, "sluice:quarantine:")),
    ("histories of events", ("sluice:history:", "sluice:verdicts:", "sluice:index:", "sluice:run:")),
    ("ids of known events", ("sluice:known:",)),
    ("signals", ("sluice:signal",)),
    ("ledgers of files", ("sluice:files:",)),
    ("jobs", ("rq:",)),
    ("the rest", ("",)),
)
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Holding:
    """One kind of stored data."""

    what: str
    count: int
    size: int
    """In bytes; for keys in Redis an estimate."""
    oldest: datetime | None
    kept: str
    """For how long it is kept, and how much at most, with the name of the setting."""


async def in_redis(redis: AsyncRedis, settings: Settings) -> list[Holding]:
    """Return what Redis has stored. It reads the names of all keys, which is too slow for regular reports."""
    sampled: dict[str, list[str]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    async for key in redis.scan_iter(count=5000):
        name = key.decode("utf-8", "surrogateescape")
        family = next(what for what, prefixes in _FAMILIES if name.startswith(prefixes))
        counts[family] += 1
        if len(sampled[family]) < _SAMPLED:
            sampled[family].append(name)
    entries = {"journal": await redis.xlen(STREAM), "finished events": await redis.xlen(FINISHED)}
    letters = await redis.zcard(DEAD)
    first: Any = await redis.xrange(STREAM, count=1)
    letter: Any = await redis.zrange(DEAD, 0, 0, withscores=True)
    began = datetime.fromtimestamp(position_seconds(text(first[0][0])), UTC) if first else None
    with reading(DEAD):
        failed = datetime.fromtimestamp(letter[0][1] / 1000, UTC) if letter else None
    kept = _kept_in_redis(settings)
    found = []
    for family, _ in _FAMILIES:
        if family in counts or family in kept:
            size = await _size(redis, sampled[family], counts[family])
            count = letters if family == "dead letters and quarantine" else entries.get(family, counts[family])
            oldest = {"journal": began, "dead letters and quarantine": failed}.get(family)
            found.append(Holding(family, count, size, oldest, kept.get(family, "as long as it is needed")))
    return found


async def _size(redis: AsyncRedis, names: list[str], count: int) -> int:
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.memory_usage(name.encode("utf-8", "surrogateescape"), samples=100)
    sizes = [int(size or 0) for size in await pipeline.execute()] if names else []
    return round(sum(sizes) / len(sizes) * count) if sizes else 0


def _kept_in_redis(settings: Settings) -> dict[str, str]:
    journal, history = settings.journal, settings.history
    days = history.dead_letter_days
    return {
        "journal": f"{_days(journal.retention_seconds)}, {journal.max_entries:,} at most (journal.*)",
        "finished events": "1 day",
        "histories of events": f"{_days(history.retention_seconds)}, {history.max_events:,} at most (history.*)",
        "ids of known events": f"{_days(journal.seen_seconds)} (journal.seen_seconds)",
        "dead letters and quarantine": (
            "until discarded (history.dead_letter_days)"
            if days is None
            else f"{days:g} days (history.dead_letter_days)"
        ),
        "signals": f"{_days(settings.resumer.retention_seconds)}, {settings.resumer.max_records:,} at most (resumer.*)",
    }


def in_folders(settings: Settings, project: Project) -> list[Holding]:
    """Return what the home and the archive folders have stored. It reads every folder, which may take minutes."""
    days = settings.history.prefect_days
    kept_runs = "for ever (history.prefect_days)" if days is None else f"{days:g} days (history.prefect_days)"
    kept = {"prefect": f"runs: {kept_runs}", "valkey": "what Redis holds"}
    parts = sorted(settings.home.iterdir()) if settings.home.is_dir() else []
    found = [_measured(f"home: {path.name}", path, kept.get(path.name, "until it is deleted")) for path in parts]
    files = settings.files
    for name, source in project.sources.files.items():
        for archive, setting, limits in (
            (source.done, "done", (files.done_days, files.done_mib)),
            (source.failed, "failed", (files.failed_days, files.failed_mib)),
        ):
            said = ", ".join(f"{limit:g} {unit}" for limit, unit in zip(limits, ("days", "MiB"), strict=True) if limit)
            path = source.path / archive
            found.append(_measured(f"watch {name}: {archive}", path, f"{said or 'for ever'} (files.{setting}_*)"))
    return found


def disks(settings: Settings, project: Project) -> list[dict[str, Any]]:
    """Return the disks of the home and of the watches, each once, with sizes in bytes; missing folders are left out."""
    found: dict[int, dict[str, Any]] = {}
    for path in (settings.home, *(source.path for source in project.sources.files.values())):
        try:
            device, space = path.stat().st_dev, os.statvfs(path)
        except OSError:
            continue
        size = space.f_blocks * space.f_frsize
        files = settings.files
        found.setdefault(
            device,
            {
                "path": str(path),
                "free": space.f_bavail * space.f_frsize,
                "size": size,
                "warns_below": round(files.warns_below(size)),
                "stops_below": round(files.stops_below(size)),
            },
        )
    return list(found.values())


def _measured(what: str, path: Path, kept: str) -> Holding:
    count, size, oldest = 0, 0, None
    for found in _files(path):
        count += 1
        size += found.st_size
        oldest = found.st_ctime if oldest is None else min(oldest, found.st_ctime)
    return Holding(what, count, size, datetime.fromtimestamp(oldest, UTC) if oldest is not None else None, kept)


def _files(path: Path) -> Iterator[os.stat_result]:
    """Yield the state of each file below the path; links are not followed, and files that vanish are left out."""
    if path.is_file() and not path.is_symlink():
        yield path.stat()
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                yield os.lstat(Path(folder, name))
            except OSError:
                continue


def _days(seconds: float) -> str:
    return f"{seconds / _DAY:g} days"
