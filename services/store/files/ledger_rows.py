"""The values of the file ledger: rows, announcements, files in flight, settlements."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple, Self

from services.store.events.archived_file import ArchivedFile


class State(StrEnum):
    """What became of a file's latest version."""

    SENT = "s"
    DONE = "d"
    FAILED = "f"
    UNMATCHED = "u"
    CLOSED = "x"
    """The file has gone; whatever comes under its name now is new."""


@dataclass(frozen=True, slots=True)
class Row:
    """A file's row. ``raw`` is what a decision that rests on it hands back."""

    state: State
    version: str
    generation: int
    at_ms: int
    digest: str | None
    marker: str | None
    raw: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The row as the scripts write it."""
        state, version, generation, at_ms, digest, marker = raw.decode("ascii").split(" ")
        return cls(
            State(state),
            version,
            int(generation),
            int(at_ms),
            None if digest == "-" else digest,
            None if marker == "-" else marker,
            raw,
        )


class Compared(NamedTuple):
    """Rows as they were at one moment of Redis' clock; True stands for one that says: this version was announced."""

    rows: list[Row | Literal[True] | None]
    as_of_ms: int


@dataclass(frozen=True, slots=True)
class Announcement:
    """A file version that is to be journalled if its row still is ``expected``.

    ``tail`` is the event's JSON after ``{"specversion":"1.0","id":"…",``: the id is made with the row's generation.
    """

    path: bytes
    expected: Row | None
    version: str
    tail: bytes
    digest: str | None = None
    marker: str | None = None


class Announced(NamedTuple):
    """What an announcement led to: an event, or none because the content ran before; neither if the row was another."""

    event_id: str | None
    same_content: bool = False


class InFlight(NamedTuple):
    """A journalled file whose end is not settled: the announced version, its row of now, and how its event ended."""

    event_id: str
    path: bytes
    announced: str
    row: Row | None
    finished: bytes

    @property
    def generation(self) -> int:
        """The row's generation that the event belongs to."""
        return int(self.event_id.rpartition("-")[2])


class Settlement(NamedTuple):
    """How an event in flight ends in the ledger; ``tally`` names the number that grows."""

    event_id: str
    path: bytes
    state: State
    tally: str
    remember_content: bool = False
    archived: ArchivedFile | None = None
    """Where the file is now, if it is anywhere."""

    @property
    def generation(self) -> int:
        """The row's generation that the event belongs to."""
        return int(self.event_id.rpartition("-")[2])


class Stamp(NamedTuple):
    """Of which server, and after how many new and closed rows, something was read."""

    server: bytes
    generation: int
    closed: int

    def holds_at(self, later: Stamp) -> bool:
        """Whether what is remembered of rows is still true then: same server, nothing lost, nothing closed."""
        same = self.server == later.server and self.closed == later.closed
        return same and self.generation <= later.generation
