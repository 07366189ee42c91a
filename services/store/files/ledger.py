"""The file ledger: the announced version of each file, and its result. It decides what is announced."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final, Literal

from redis.exceptions import ResponseError

from config.settings import FileSettings, JournalSettings
from events.identity import id_of, identity_of, tail_of
from services.store.connection import AsyncRedis, ask_each, text
from services.store.events.journal import STREAM
from services.store.files.ledger_rows import Announced, Announcement, Compared, InFlight, Row, Settlement, Stamp
from services.store.keys import Key, is_number, is_object, is_text, pair
from services.store.scripts import Script
from services.store.unreadable import readable, reading

FILES: Final = "sluice:files:"
"""Prefix of a watch's keys; the watch's name and the kind of key follow."""

MEMORY_SECONDS: Final = 3600
"""How long the row of a closed file is kept: longer than a decision may be based on rows that were read."""
_LONGEST_DECISION_MS: Final = MEMORY_SECONDS * 1000 // 2
_SAME, _NONE = ord("="), ord("-")

_COMPARE: Final = Script("files/compare")
_ANNOUNCE: Final = Script("files/announce")
_ADOPT: Final = Script("files/adopt")
_CLOSE: Final = Script("files/close")
_FORGET: Final = Script("files/forget")
_FINISH: Final = Script("files/finish")
_SETTLE: Final = Script("files/settle")
_REINSTATE: Final = Script("files/reinstate")


class Ledger:
    """The ledger of every watch. Paths are bytes, relative to their watch.

    Every method raises `TransientError` when Redis is out of reach and `Backpressure` when it is full; then the same
    call may be made again, and does only what is missing.
    """

    def __init__(self, redis: AsyncRedis, journal: JournalSettings, files: FileSettings) -> None:
        self._redis = redis
        self._seen_ms = int(journal.seen_seconds * 1000)
        self._memory_ms = int(files.content_memory_seconds * 1000)

    async def compare(self, watch: str, files: Sequence[tuple[bytes, str]]) -> Compared:
        """Compare files (path, version) with their rows, in their order."""
        answer = await _COMPARE(self._redis, rows=_key(watch, "rows"), files=files)
        as_of_ms, letters, *others = answer
        rest = iter(others)
        rows: list[Row | Literal[True] | None] = [
            True if letter == _SAME else None if letter == _NONE else _row(watch, next(rest)) for letter in letters
        ]
        return Compared(rows, int(as_of_ms))

    async def rows(self, watch: str, paths: Sequence[bytes]) -> list[Row | None]:
        """Return the rows of ``paths``, in their order."""
        values: list[Any] = await self._redis.hmget(_key(watch, "rows"), list(paths))
        return [None if raw is None else _row(watch, raw) for raw in values]

    async def event_in_flight(self, watch: str, path: bytes) -> str | None:
        """Return the id of the file's unfinished event, if there is one; for a watch with few files."""
        key = _keys(watch, "in_flight")["in_flight"]
        found: Any = await self._redis.hgetall(key)
        rows = readable(key, lambda row: (text(row[0]), _in_flight(row[1])), found.items())
        return next((event_id for event_id, note in rows if path in note), None)

    async def outlive(self, watch: str, *, seconds: int) -> None:
        """Let the watch's data expire in ``seconds``, unless this is called again before."""
        keys = [_key(watch, kind) for kind in ("rows", "events", "due", "numbers", "root")]
        await ask_each(self._redis, lambda pipeline, key: pipeline.expire(key, seconds), keys)

    async def announce(
        self, watch: str, files: Sequence[Announcement], *, as_of_ms: int, received: str, remember_content: bool = False
    ) -> list[Announced]:
        """Record the files and journal an event for each, in one atomic step; one result for each, in order.

        ``as_of_ms`` is when the rows were read; the files must have been examined after that.
        """
        announced = [
            (
                file.path,
                file.expected.raw if file.expected else b"",
                f"{file.version} {file.digest or '-'} {file.marker or '-'} {_base(watch, file)}",
                file.tail,
            )
            for file in files
        ]
        answers: bytes | None = await _ANNOUNCE(
            self._redis,
            journal=STREAM,
            **_keys(watch, "rows", "in_flight", "due", "numbers"),
            as_of_ms=as_of_ms,
            longest_ms=_LONGEST_DECISION_MS,
            known_ms=self._seen_ms,
            identity_tail=tail_of(source_of(watch)),
            received=received,
            listener=f"files:{watch}",
            watch=watch,
            memory=_key(watch, "content:") if remember_content else "",
            files=announced,
        )
        if answers is None:
            return [Announced(None)] * len(files)
        return [_announced(answer) for answer in answers.decode().split("\n")]

    async def adopt(self, watch: str, files: Sequence[tuple[bytes, Row, str]]) -> list[bool]:
        """Set the version of each row (path, row, version) to a new one with the same content.

        Returns, for each, whether the row was still the given one.
        """
        rows = [(path, row.raw, version) for path, row, version in files]
        return [bool(answer) for answer in await _ADOPT(self._redis, rows=_key(watch, "rows"), files=rows)]

    async def close(self, watch: str, files: Sequence[tuple[bytes, Row]]) -> int:
        """Close the rows of deleted files, and return their number; files in flight are left to `settle`."""
        rows = [(path, row.raw) for path, row in files]
        return int(await _CLOSE(self._redis, **_keys(watch, "rows", "numbers"), files=rows))

    async def forget(self, watch: str, files: Sequence[tuple[bytes, Row]]) -> int:
        """Delete rows that have been closed for `MEMORY_SECONDS`; return their number."""
        rows = [(path, row.raw) for path, row in files]
        return int(await _FORGET(self._redis, **_keys(watch, "rows"), files=rows))

    async def every_row(self, watch: str) -> AsyncIterator[list[tuple[bytes, Row]]]:
        """Yield all rows, some hundred at a time; one that changes meanwhile may come in either form, or twice."""
        cursor = 0
        while True:
            answer: tuple[int, dict[bytes, bytes]] = await self._redis.hscan(_key(watch, "rows"), cursor, count=500)  # type: ignore[assignment]
            cursor, found = answer
            if found:
                yield list(readable(_key(watch, "rows"), lambda row: (row[0], Row.parse(row[1])), found.items()))
            if not cursor:
                return

    async def finish(self, ends: Iterable[tuple[str, bytes]]) -> set[str]:
        """Record the results of files' events (identity, JSON); return the watches concerned."""
        by_watch: dict[str, list[tuple[str, bytes]]] = {}
        for identity, finished in ends:
            event_id = id_of(identity)
            watch = watch_of(event_id)
            # An event of another source is no file's event, whatever its id looks like.
            if watch is not None and identity == identity_of(source_of(watch), event_id):
                by_watch.setdefault(watch, []).append((event_id, finished))
        concerned = set()
        for watch, own in by_watch.items():
            if await _FINISH(self._redis, **_keys(watch, "in_flight", "due"), ends=own):
                concerned.add(watch)
        return concerned

    async def due(self, watch: str, count: int, cursor: int = 0) -> tuple[list[InFlight], int]:
        """Return about ``count`` finished events in flight, in no order, and the next cursor; 0 is the end."""
        ended: dict[bytes, bytes] = {}
        while len(ended) < count:
            answer: tuple[int, dict[bytes, bytes]] = await self._redis.hscan(  # type: ignore[assignment]
                _key(watch, "due"), cursor, count=count
            )
            cursor, found = answer
            ended |= found
            if not cursor:
                break
        if not ended:
            return [], 0
        notes: list[bytes | None] = await self._redis.hmget(_key(watch, "events"), list(ended))  # type: ignore[assignment]
        with reading(_key(watch, "events")):
            found_notes = [_in_flight(note) if note else (b"", b"-", b"") for note in notes]
        rows = await self.rows(watch, [path for _, _, path in found_notes])
        with reading(_key(watch, "events")):
            return [
                InFlight(_file_event(event_id), path, announced.decode(), row, finished)
                for (event_id, finished), (_, announced, path), row in zip(
                    ended.items(), found_notes, rows, strict=True
                )
            ], cursor

    async def settle(self, watch: str, ends: Sequence[Settlement]) -> None:
        """End the flight of events and record the results in their rows, unless the row has a later version."""
        rows = [
            (end.event_id, end.path, end.generation, end.state.value, end.tally, int(end.remember_content))
            for end in ends
        ]
        await _SETTLE(
            self._redis,
            **_keys(watch, "rows", "in_flight", "due", "numbers"),
            memory=_key(watch, "content:"),
            memory_ms=self._memory_ms,
            ends=rows,
        )

    async def reinstate(self, watch: str, event_id: str, path: bytes, version: str, tally: str) -> int:
        """Put the event of an archived file in flight again; ``tally`` names the number that decreases.

        Returns 1; 2 if it is in flight already; 0 if another version of the file was announced since.
        """
        return int(
            await _REINSTATE(
                self._redis,
                **_keys(watch, "rows", "in_flight", "due", "numbers"),
                event_id=event_id,
                path=path,
                version=version,
                generation=event_id.rpartition("-")[2],
                tally=tally,
            )
        )

    async def numbers(self, watch: str) -> dict[str, int]:
        """Return the numbers of files: announced (``generation``), ended as ``done`` …, ``in_flight``, ``due``."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hgetall(_key(watch, "numbers"))
        pipeline.hlen(_key(watch, "events"))
        pipeline.hlen(_key(watch, "due"))
        numbers, in_flight, due = await pipeline.execute()
        counted = dict(readable(_key(watch, "numbers"), lambda row: (row[0].decode(), int(row[1])), numbers.items()))
        return {**counted, "in_flight": in_flight, "due": due}

    async def stamp(self, watch: str) -> Stamp:
        """Return the state on which cached rows of the watch depend."""
        generation, closed = await self._redis.hmget(_key(watch, "numbers"), ["generation", "closed"])
        try:
            server = str((await self._redis.info("server")).get("run_id", "")).encode()
        except ResponseError:  # some hosted servers do not allow it
            server = b""
        with reading(_key(watch, "numbers")):
            return Stamp(server, int(generation or 0), int(closed or 0))

    async def size(self, watch: str) -> int:
        """Return the number of rows."""
        return int(await self._redis.hlen(_key(watch, "rows")))

    async def root(self, watch: str) -> str | None:
        """Return the identity of the watch's directory for which its rows were last confirmed."""
        identity = await self._redis.get(_key(watch, "root"))
        with reading(_key(watch, "root")):
            return None if identity is None else text(identity)

    async def set_root(self, watch: str, identity: str) -> None:
        """Record the identity of the watch's directory."""
        await self._redis.set(_key(watch, "root"), identity)


def source_of(watch: str) -> str:
    """Return the source of the events of the watch's files."""
    return f"files/{watch}"


def watch_of(event_id: str) -> str | None:
    """Return the watch to whose files an event of this id may belong; None if it is no file's event."""
    watch, base, generation = [*event_id.rsplit("-", 2), "", ""][:3]
    return watch if base and generation.isdecimal() else None


def _key(watch: str, kind: str) -> str:
    return f"{FILES}{watch}:{kind}"


def _keys(watch: str, *names: str) -> dict[str, str]:
    """Return the keys of the watch under the names that the scripts use."""
    return {name: _key(watch, "events" if name == "in_flight" else name) for name in names}


def _base(watch: str, file: Announcement) -> str:
    named = b"\0".join((watch.encode(), file.path, file.version.encode()))
    return hashlib.blake2b(named, digest_size=8).hexdigest()


def _announced(answer: str) -> Announced:
    if answer.startswith("="):
        return Announced(answer[1:], same_content=True)
    return Announced(answer or None)


def _row(watch: str, raw: bytes) -> Row:
    with reading(_key(watch, "rows")):
        return Row.parse(raw)


def _in_flight(note: bytes) -> tuple[bytes, bytes, bytes]:
    at, version, path = note.split(b" ", 2)
    int(at)
    version.decode("ascii")
    return at, version, path


def _file_event(event_id: bytes) -> str:
    found = event_id.decode()
    if watch_of(found) is None:
        raise ValueError("not the id of a file's event")
    return found


KEYS: Final = (
    Key(
        FILES + "*:rows",
        "hash",
        "version of a file and what became of it",
        "as long as the file is there, and an hour",
        pair(bytes, Row.parse),
    ),
    Key(
        FILES + "*:events",
        "hash",
        "unfinished event of a file",
        "until its end is settled",
        pair(_file_event, _in_flight),
    ),
    Key(FILES + "*:due", "hash", "end of a file's event", "until the file is archived", pair(_file_event, is_object)),
    Key(FILES + "*:numbers", "hash", "number of a watch's files", "for good", pair(is_text, is_number)),
    Key(FILES + "*:root", "string", "identity of a watch's folder", "for good", is_text),
    Key(FILES + "*:content:*", "string", "digest of a content that ran", "files.content_memory_seconds", is_text),
)
