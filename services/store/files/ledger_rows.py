"""The values of the file ledger: rows, announcements, files in flight, settlements."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple, Self

from services.store.events.archived_file import ArchivedFile


class State(StrEnum):
    """The result of a file's latest version."""

    SENT = "s"
    DONE = "d"
    FAILED = "f"
    UNMATCHED = "u"
    CLOSED = "x"
    """The file was deleted; a file that comes under its name now is new."""


@dataclass(frozen=True, slots=True)
class Row:
    """A file's row. ``raw`` is its text, by which a script recognises that it is unchanged."""

    state: State
    version: str
    generation: int
    at_ms: int
    digest: str | None
    marker: str | None
    raw: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Parse the row as the scripts write it."""
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
    """Rows at one moment of Redis' clock; True stands for a row that shows this version as announced."""

    rows: list[Row | Literal[True] | None]
    as_of_ms: int


@dataclass(frozen=True, slots=True)
class Announcement:
    """A file version to be journalled if its row still is ``expected``.

    ``tail`` is the event's JSON after ``{"specversion":"1.0","id":"…",``: the id is made with the row's generation.
    """

    path: bytes
    expected: Row | None
    version: str
    tail: bytes
    digest: str | None = None
    marker: str | None = None


class Announced(NamedTuple):
    """Result of an announcement: an event, or none because the content ran before; neither if the row had changed."""

    event_id: str | None
    same_content: bool = False


class InFlight(NamedTuple):
    """A journalled file without a recorded result: the announced version, its present row, and its event's result."""

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
    """The result of an event in flight for the ledger; ``tally`` names the number that increases."""

    event_id: str
    path: bytes
    state: State
    tally: str
    remember_content: bool = False
    archived: ArchivedFile | None = None
    """Where the file is now, if it still exists."""

    @property
    def generation(self) -> int:
        """The row's generation that the event belongs to."""
        return int(self.event_id.rpartition("-")[2])


class Stamp(NamedTuple):
    """The server, and its numbers of new and closed rows, at the time when rows were read."""

    server: bytes
    generation: int
    closed: int

    def holds_at(self, later: Stamp) -> bool:
        """Whether cached rows are still valid at that stamp: same server, nothing lost, nothing closed."""
        same = self.server == later.server and self.closed == later.closed
        return same and self.generation <= later.generation
