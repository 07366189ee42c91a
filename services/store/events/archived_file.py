"""Where the file of an event was moved when the event was finished, as a line of its history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class ArchivedFile(BaseModel):
    """One archiving of a file. Paths are bytes, relative to the watch."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    fate: Literal["done", "failed", "kept", "deleted"]
    path: bytes
    place: bytes
    """Where the file is now: ``path`` itself if it was kept."""
    version: str
    announced: str
    """The version that the event announced; ``version`` is that of the file at ``place``."""
    ended: dict[str, Any]
    """The event's entry in the stream of finished events."""

    @property
    def shown(self) -> dict[str, Any]:
        """The file as commands and the API show it."""
        return {"at": self.at, "fate": self.fate, "place": self.place.decode("utf-8", "replace")}

    def line(self) -> list[Any]:
        """As a history line."""
        at_ms = int(self.at.timestamp() * 1000)
        return ["f", at_ms, self.fate, _text(self.path), _text(self.place), self.version, self.announced, self.ended]


def archived_file(line: Sequence[Any]) -> ArchivedFile:
    """The inverse of `ArchivedFile.line`; raises ValueError or TypeError."""
    _, at_ms, fate, path, place, version, announced, ended = line
    return ArchivedFile(
        at=datetime.fromtimestamp(at_ms / 1000, UTC),
        fate=fate,
        path=_bytes(path),
        place=_bytes(place),
        version=version,
        announced=announced,
        ended=ended,
    )


def _text(path: bytes) -> str:
    """Return a path as JSON text: one that is not UTF-8 in hexadecimal digits after a NUL, which no path contains."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        return f"\0{path.hex()}"


def _bytes(path: str) -> bytes:
    return bytes.fromhex(path[1:]) if path.startswith("\0") else path.encode()
