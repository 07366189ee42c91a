"""One event's history, built from the lines in which it is stored."""

from __future__ import annotations

import itertools
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from events.identity import id_of
from services.store.events.archived_file import ArchivedFile, archived_file
from services.store.events.journal import JournalEntry
from services.store.keys import position_seconds

_COMPRESSED_FROM: Final = 200
"""Bytes; below that, compression saves nothing."""

_LONGEST_LINE: Final = 16 * 1024 * 1024
"""Bytes of a history line, unpacked. The verdicts of a thousand rules are 0.5 MB."""

FAILURES: Final = frozenset({"FAILED", "CRASHED"})
"""State types of a failed run. A cancelled run did not fail, because somebody wanted its end."""

_LONGEST_VALUE: Final = 500
"""Characters of a value, as JSON, that a `Change` keeps."""


class VerdictRecord(BaseModel):
    """A rule's verdict: not matched, with the criterion that failed and its value; or matched, with a remark."""

    model_config = ConfigDict(frozen=True)

    rule: str
    matched: bool
    failed: str | None = None
    detail: str = ""


class RunState(BaseModel):
    """A state of a run: the start of its execution, or its end."""

    model_config = ConfigDict(frozen=True)

    type: str
    name: str
    message: str
    at: datetime


class RunHistory(BaseModel):
    """A run that an event led to; the last of ``states`` is the present one."""

    run_id: str
    rule: str
    deployment: str
    created: datetime
    states: list[RunState] = []

    @property
    def state(self) -> str | None:
        """The last state's type, if any was recorded."""
        return self.states[-1].type if self.states else None


class Happening(BaseModel):
    """A signal, a dead letter or a note in an event's history."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    id: str | None = None
    rule: str | None = None
    code: str | None = None
    text: str = ""


class Change(BaseModel):
    """A value that somebody changed in a dead letter before its replay, old and new as JSON; None for no value."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    by: str | None
    letter: str
    path: str
    before: str | None
    after: str | None


class EventHistory(BaseModel):
    """All records of one event. Times are from the clock of the machine that did the step."""

    id: str
    source: str | None
    """None where the journal no longer holds the event."""
    identity: str
    event: dict[str, Any] | None
    """The event itself, as long as the journal holds it."""
    position: str
    listener: str = ""
    received: datetime | None = None
    journalled: datetime | None = None
    routed: datetime | None = None
    rules_version: str | None = None
    verdicts: list[VerdictRecord] = []
    runs: list[RunHistory] = []
    signals: list[Happening] = []
    dead: list[Happening] = []
    changes: list[Change] = []
    files: list[ArchivedFile] = Field(default=[], exclude=True)
    """One for each time that its file was archived; `file` has the last one for display."""
    notes: list[Happening] = []
    judged: int = 0
    """How often the rules were evaluated on it: more than once after a replay."""

    @property
    def matched(self) -> list[str]:
        """The rules that matched."""
        return [verdict.rule for verdict in self.verdicts if verdict.matched]

    @property
    def failed(self) -> bool:
        """Whether one of its effects failed and no later attempt succeeded."""
        well = {run.rule for run in self.runs if run.state == "COMPLETED"}
        return any(letter.rule not in well for letter in self.dead) or any(run.state in FAILURES for run in self.runs)

    @property
    def outcome(self) -> str:
        """In a word: ``waiting``, ``unmatched``, ``running``, ``failed``, ``cancelled`` or ``done``."""
        if not self.judged:
            return "waiting"
        if self.failed:
            return "failed"
        if not self.matched:
            return "unmatched"
        if not self.runs:
            return "done" if self.signals else "waiting"
        states = {run.state for run in self.runs}
        if states <= {"COMPLETED", "CANCELLED"}:
            return "cancelled" if "CANCELLED" in states else "done"
        return "running"

    @property
    def row(self) -> dict[str, Any]:
        """The event's row in a listing."""
        event = self.event or {}
        return {
            "received": self.received or self.journalled,
            "id": self.id,
            "type": event.get("type"),
            "source": self.source,
            "subject": event.get("subject"),
            "outcome": self.outcome,
            "reason": self.reason,
            "matched": self.matched,
            "runs": [{"run_id": run.run_id, "rule": run.rule, "state": run.state} for run in self.runs],
            "dead": [letter.id for letter in self.dead],
        }

    @property
    def file(self) -> dict[str, Any] | None:
        """Where its file is, or what became of it."""
        return self.files[-1].shown if self.files else None

    @property
    def reason(self) -> str:
        """Why it failed: the messages of the runs that failed, and the reasons of its dead letters."""
        if not self.failed:
            return ""
        ends = [run.states[-1] for run in self.runs if run.state in FAILURES]
        well = {run.rule for run in self.runs if run.state == "COMPLETED"}
        letters = {letter.rule: letter.text for letter in self.dead if letter.rule not in well}
        return "; ".join([*(end.message or end.name for end in ends), *letters.values()])

    @property
    def timings_ms(self) -> dict[str, int]:
        """Duration of each step of which begin and end are known."""
        marks = [("received", self.received), ("journalled", self.journalled), ("routed", self.routed)]
        if self.runs:
            run = self.runs[0]
            marks.append(("run created", run.created))
            marks += [(f"run {state.name.lower()}", state.at) for state in run.states]
        known = [(name, at) for name, at in marks if at is not None]
        return {
            f"{before} to {name}": round((at - earlier).total_seconds() * 1000)
            for (before, earlier), (name, at) in itertools.pairwise(known)
        }


def fold(
    identity: str,
    position: str,
    entry: JournalEntry | None,
    lines: Sequence[list[Any]],
    *,
    shared: Mapping[str, list[list[Any]]],
) -> EventHistory:
    """Build the history from its lines, in the order of writing; ``shared`` has the common verdicts by digest."""
    found = EventHistory(
        id=entry.event.id if entry is not None else id_of(identity),
        source=entry.event.source if entry is not None else None,
        identity=identity,
        position=position,
        event=None,
        journalled=moment(position_seconds(position)),
    )
    if entry is not None:
        found.event = json.loads(entry.event.to_json())
        found.listener = entry.listener
        found.received = _iso(entry.received)
    runs: dict[str, RunHistory] = {}
    for line in lines:
        _add(found, runs, line, shared)
    for run in runs.values():
        run.states.sort(key=lambda state: state.at)
    found.runs = list(runs.values())
    return found


def _add(
    found: EventHistory, runs: dict[str, RunHistory], line: list[Any], shared: Mapping[str, list[list[Any]]]
) -> None:
    """Add one line of the stored history; lines of a newer version of Sluice are left out."""
    match line:
        case ["v", at, _, version, digest, own]:
            found.judged += 1
            found.routed = found.routed or moment(at / 1000)
            found.rules_version = version
            rows = sorted([*shared.get(digest, []), *own], key=lambda row: int(row[0]))
            found.verdicts = [_verdict(*row[1:]) for row in rows]
        case ["r", at, run_id, rule, deployment]:
            runs.setdefault(
                run_id, RunHistory(run_id=run_id, rule=rule, deployment=deployment, created=moment(at / 1000))
            )
        case ["s", at, run_id, type_, name, message] if run_id in runs:
            runs[run_id].states.append(RunState(type=type_, name=name, message=message, at=moment(at / 1000)))
        case ["g", at, id_, rule, outcome]:
            found.signals.append(Happening(at=moment(at / 1000), id=id_, rule=rule, text=outcome))
        case ["d", at, id_, rule, code, reason]:
            found.dead.append(Happening(at=moment(at / 1000), id=id_, rule=rule, code=code, text=reason))
        case ["c", at, by, letter, changes]:
            found.changes += [
                Change(at=moment(at / 1000), by=by, letter=letter, path=path, before=before, after=after)
                for path, before, after in changes
            ]
        case ["f", *_]:
            found.files.append(archived_file(line))
        case ["n", at, rule, said]:
            found.notes.append(Happening(at=moment(at / 1000), rule=rule, text=said))
        case _:
            pass  # a line of another version


def note_line(rule: str | None, said: str) -> list[Any]:
    """A remark as a history line."""
    return ["n", now_ms(), rule, said]


def change_line(by: str | None, letter: str, changes: Sequence[tuple[str, Any, Any]]) -> list[Any]:
    """Return changes of a dead letter as a history line; each change is a path, the old and the new value."""
    rows = [[path, *map(_short, values)] for path, *values in changes]
    return ["c", now_ms(), by, letter, rows]


def _short(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)[:_LONGEST_VALUE]


def compact_json(value: Any) -> bytes:
    """JSON without spaces, in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def packed(line: Sequence[Any]) -> bytes:
    """A history line as it is stored."""
    raw = compact_json(line)
    if len(raw) < _COMPRESSED_FROM:
        return raw
    small = zlib.compress(raw, 6)
    return small if len(small) < len(raw) else raw


def unpacked(stored: bytes) -> list[Any]:
    """The line that `packed` stored: JSON begins with a bracket, compressed data never does."""
    line: list[Any] = json.loads(stored if stored.startswith(b"[") else unzipped(stored))
    fold("", "0-0", None, [line], shared={})  # raises for a line that no part of Sluice writes
    return line


def unzipped(stored: bytes) -> bytes:
    """Decompress; raises ValueError beyond `_LONGEST_LINE`."""
    unpacker = zlib.decompressobj()
    line = unpacker.decompress(stored, _LONGEST_LINE)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("not a whole line of a history")
    return line


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def now_ms() -> int:
    """This moment, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _verdict(rule: str, failed: str | None = None, detail: str = "") -> VerdictRecord:
    return VerdictRecord(rule=rule, matched=failed is None, failed=failed, detail=detail)


def _iso(value: str) -> datetime | None:
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None
