"""Requests to move archived files back for replays of their events, and the answers.

A replay requests the file here. The archiver of the watch, which can reach the folder, moves the file back, reopens the
event, and answers.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict

from config.settings import HistorySettings, JournalSettings
from events.errors import Refused
from events.event import stored_event
from events.identity import id_of, identity_of
from services.store.connection import AsyncRedis
from services.store.event_transitions import EventTransitions
from services.store.events.archived_file import ArchivedFile
from services.store.events.event_history import compact_json, note_line
from services.store.events.history import History
from services.store.events.journal import Journal
from services.store.events.open_effects import OPEN
from services.store.files.ledger import FILES, source_of, watch_of
from services.store.keys import Key, pair
from services.store.runs.created_runs import CreatedRuns
from services.store.unreadable import readable, readable_one

ANSWER_SECONDS: Final = 15.0
"""How long to wait for an answer: an archiver checks every second, and gets a folder's lease within ten."""

_KEPT_SECONDS: Final = 600
_LOOK_SECONDS: Final = 0.05


class Again(BaseModel):
    """How an event is evaluated again when its file is back: by which rules (none: all), with which salt.

    ``event`` is the event's JSON if it was changed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    only: tuple[str, ...] = ()
    salt: str | None = None
    event: str | None = None


class Return(BaseModel):
    """A requested file: the runs that are to start again with it, and whether its event is evaluated again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: str
    runs: tuple[str, ...] = ()
    again: Again | None = None
    by: str | None = None
    since_ms: int | None = None
    """When Prefect scheduled the runs again, if it has: a run with a later state does not need the file."""


class ReturnAnswer(NamedTuple):
    """The answer to a request; ``reason`` says why a file was not moved back."""

    ok: bool
    reason: str = ""


class FileReturns:
    """Every method raises `TransientError` or `Backpressure` when Redis cannot do it now."""

    def __init__(self, redis: AsyncRedis, *, journal: JournalSettings, history: HistorySettings) -> None:
        self._redis = redis
        self._history = History(redis, history)
        self.runs = CreatedRuns(redis)
        self._journal = Journal(redis, journal)
        self._transitions = EventTransitions(redis, retention_seconds=history.retention_seconds)

    # For replays -----------------------------------------------------------------------------------------------------

    async def bring_back(
        self,
        identity: str,
        *,
        runs: Sequence[str] = (),
        again: Again | None = None,
        by: str | None = None,
        since_ms: int | None = None,
    ) -> bool:
        """Have an event's file moved back, for its ``runs`` or to evaluate it ``again``; return whether it has one.

        On return the file is where it arrived, and ``again`` has been done; the caller has to start the ``runs``.
        Raises `Refused` if the file cannot be moved back (``file-not-returned``) or no archiver has answered
        (``no-archiver``); then nothing was started.
        """
        watch = watch_of(id_of(identity))
        if watch is None or identity != identity_of(source_of(watch), id_of(identity)):
            return False
        event_id = id_of(identity)
        wanted = Return(event_id=event_id, runs=tuple(runs), again=again, by=by, since_ms=since_ms)
        if await self.outdated(wanted):
            return True
        if await self._unfinished(watch, event_id, identity):
            await self._transitions.reopen(identity, 1, (), await self._tokens(runs))
            return False
        found = await self._history.get(identity)
        if found is None or not found.files:
            return False
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.delete(_answer(watch, event_id))
        pipeline.hset(_wanted(watch), event_id, wanted.model_dump_json())
        await pipeline.execute()
        answer = await self._answered(watch, event_id)
        if not answer.ok:
            raise Refused("file-not-returned", f"nothing was started: {answer.reason}")
        return True

    async def _unfinished(self, watch: str, event_id: str, identity: str) -> bool:
        """Whether the event is unfinished, so that its file is where it arrived; waits while it is being archived."""
        give_up = time.monotonic() + ANSWER_SECONDS
        while True:
            in_flight = await self._redis.hexists(f"{FILES}{watch}:events", event_id)
            is_open = await self._redis.exists(OPEN + identity)
            if not in_flight or is_open or time.monotonic() > give_up:
                return bool(in_flight and is_open)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _tokens(self, runs: Sequence[str]) -> list[tuple[str, str]]:
        """Return the known runs, each with the token of its effect."""
        records = [(run_id, await self.runs.get(run_id)) for run_id in runs]
        return [(run_id, record.token) for run_id, record in records if record is not None]

    async def _answered(self, watch: str, event_id: str) -> ReturnAnswer:
        """Wait for the listener's answer; raises `Refused` if none came and the request could be withdrawn.

        A request that is gone was taken: then the answer is on its way, and it waits again.
        """
        give_up = time.monotonic() + ANSWER_SECONDS
        while True:
            raw: Any = await self._redis.get(_answer(watch, event_id))
            if (answer := readable_one(_answer(watch, event_id), _parsed_answer, raw)) is not None:
                return answer
            if time.monotonic() > give_up:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        taken = not await self._redis.hdel(_wanted(watch), event_id)
        if taken:
            return await self._answered(watch, event_id)
        raise Refused(
            "no-archiver",
            f"nothing was started: nobody has brought the file back within {ANSWER_SECONDS:g} s; `sluice status` says "
            f"whether the role `listeners` runs and can reach the watch {watch}",
        )

    # For the archiver ------------------------------------------------------------------------------------------------

    async def wanted(self, watch: str) -> list[Return]:
        """Return the requested files of the watch."""
        found: dict[bytes, bytes] = await self._redis.hgetall(_wanted(watch))  # type: ignore[assignment]
        return list(readable(_wanted(watch), _parsed_return, found.values()))

    async def archived(self, watch: str, event_id: str) -> ArchivedFile | None:
        """Return where the event's file was archived last."""
        found = await self._history.get(identity_of(source_of(watch), event_id))
        return found.files[-1] if found is not None and found.files else None

    async def outdated(self, asked: Return) -> bool:
        """Whether the runs have left the scheduled state, so that they do not need the file."""
        records = [await self.runs.get(run_id) for run_id in asked.runs]
        return asked.since_ms is not None and any(
            record is not None and record.state_ms > asked.since_ms for record in records
        )

    async def reopen(self, watch: str, asked: Return, archived: ArchivedFile) -> None:
        """Reopen the event, which is finished again when the requested runs have ended."""
        effects = []
        for sign, ended, token in await self._effects(archived.ended, asked):
            effects.append((token, sign + compact_json(ended).decode()))
        again = await self._tokens(asked.runs)
        matched = archived.ended.get("matched")
        await self._transitions.reopen(
            identity_of(source_of(watch), asked.event_id), matched if isinstance(matched, int) else 1, effects, again
        )

    async def _effects(self, ended: Mapping[str, Any], asked: Return) -> list[tuple[str, dict[str, Any], str]]:
        """Return the effects that stay: sign, value and token. A rerun keeps none of its rules."""
        rerun = asked.again if asked.again is not None and asked.again.salt else None

        def stays(rule: Any) -> bool:
            return rerun is None or (bool(rerun.only) and rule not in rerun.only)

        effects = []
        for run in ended.get("runs") or ():
            record = await self.runs.get(str(run.get("run_id")))
            if record is not None and stays(record.rule):
                effects.append(("+" if run.get("state_type") == "COMPLETED" else "-", run, record.token))
        effects += [
            ("!", letter, f"{letter.get('rule') or ''}!")
            for letter in ended.get("dead") or ()
            if stays(letter.get("rule"))
        ]
        return effects

    async def note(self, watch: str, event_id: str, said: str) -> None:
        """Add a remark to the event's history."""
        await self._history.add(identity_of(source_of(watch), event_id), note_line(None, said))

    async def judge_again(self, watch: str, event_id: str, again: Again) -> bool:
        """Journal the event once more; false if the journal no longer holds it."""
        found = await self._history.get(identity_of(source_of(watch), event_id))
        if found is None or found.event is None:
            return False
        event = stored_event(json.loads(again.event) if again.event is not None else found.event)
        received = found.received.isoformat() if found.received is not None else ""
        await self._journal.append_again([(event, received, found.listener)], only=again.only, salt=again.salt)
        return True

    async def answer(self, watch: str, asked: Return, answer: ReturnAnswer) -> None:
        """Answer the request for a file, and delete it."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.set(_answer(watch, asked.event_id), json.dumps(answer), ex=_KEPT_SECONDS)
        pipeline.hdel(_wanted(watch), asked.event_id)
        await pipeline.execute()

    async def keep(self, watch: str, files: Iterable[tuple[str, ArchivedFile]]) -> None:
        """Record in the histories of events where their files were archived."""
        lines = [(identity_of(source_of(watch), event_id), file.line()) for event_id, file in files]
        if lines:
            await self._history.add_each(lines)


def _wanted(watch: str) -> str:
    return f"{FILES}{watch}:wanted"


def _answer(watch: str, event_id: str) -> str:
    return f"{FILES}{watch}:returned:{event_id}"


def _parsed_return(raw: bytes) -> Return:
    return Return.model_validate_json(raw)


def _parsed_answer(raw: bytes) -> ReturnAnswer:
    ok, reason = json.loads(raw)
    if not isinstance(ok, bool) or not isinstance(reason, str):
        raise TypeError("not an answer")
    return ReturnAnswer(ok, reason)


KEYS: Final = (
    Key(
        FILES + "*:wanted",
        "hash",
        "file that is to be brought back",
        "until an archiver has answered",
        pair(bytes, _parsed_return),
    ),
    Key(FILES + "*:returned:*", "string", "whether a file was brought back", "ten minutes", _parsed_answer),
)
