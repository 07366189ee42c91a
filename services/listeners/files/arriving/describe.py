"""Makes the event of a file: its data, and names that are not UTF-8."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from config.paths import PathTemplate
from services.listeners.files.folder import ALIASES, Folder
from services.listeners.files.scanning.examine import Examined
from services.store.files.ledger import source_of

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_NAME: Final = 255
_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Describer:
    """Makes the events of one watch."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._template = PathTemplate(folder.source.template) if folder.source.template else None

    def event(self, path: bytes, seen: Examined, now: datetime) -> dict[str, Any]:
        """Return the event's attributes without the id. Raises `OSError` where a name not in UTF-8 gets no alias."""
        source = self._folder.source
        subject, openable, encoded = self._names(path)
        data: dict[str, Any] = {
            "watch": self._folder.name,
            "path": openable,
            "name": subject.rpartition("/")[2],
            "size": seen.version.size,
            "mtime": iso(seen.version.mtime_ns),
        }
        if seen.digest is not None and source.sha256 != "never":
            data["sha256"] = seen.digest
        if encoded:
            data["encoding"] = "percent"
        if self._template is not None:
            data |= self._template.capture(subject)
        return {
            "source": source_of(self._folder.name),
            "type": source.type,
            "subject": subject,
            "time": now.isoformat().replace("+00:00", "Z"),
            "data": data | source.data,
            "fileversion": str(seen.version),
        }

    def _names(self, path: bytes) -> tuple[str, str, bool]:
        try:
            subject = path.decode("utf-8")
        except UnicodeDecodeError:
            return quoted(path), os.fsdecode(make_alias(self._folder, path)), True
        return subject, os.fsdecode(self._folder.absolute(path)), False


def tail(event: Mapping[str, Any]) -> bytes:
    """Return the event's JSON after ``{"specversion":"1.0","id":"…",``; the ledger adds that beginning."""
    return _JSON(event)[1:].encode()


def iso(ns: int) -> str:
    """Return nanoseconds since the epoch as ISO 8601 in UTC, to the microsecond, clamped to the calendar's range."""
    try:
        moment = _EPOCH + timedelta(microseconds=ns // 1000)
    except OverflowError:
        moment = datetime.max.replace(tzinfo=UTC) if ns > 0 else datetime.min.replace(tzinfo=UTC)
    return moment.isoformat().replace("+00:00", "Z")


def quoted(path: bytes) -> str:
    """Return a path that is not UTF-8 as text: the invalid bytes, and ``%`` itself, as ``%XX``.

    ``urllib.parse.unquote_to_bytes`` gives the path back.
    """
    text = path.replace(b"%", b"%25").decode("utf-8", "surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", text)


def alias_of(path: bytes) -> bytes:
    """Return the path below the watch of the link by which a file whose name is not UTF-8 can be opened."""
    name = quoted(path).replace("/", "%2F")
    if len(name.encode()) > _LONGEST_NAME:
        name = hashlib.sha256(path).hexdigest() + os.path.splitext(name)[1][:32]
    return ALIASES + b"/" + name.encode()


def make_alias(folder: Folder, path: bytes) -> bytes:
    """Make a link with a name in UTF-8 to the file at ``path``; return its absolute path. Raises `OSError`."""
    alias = alias_of(path)
    with folder.entered(ALIASES, make=True) as directory, contextlib.suppress(FileExistsError):
        os.symlink(b"../../" + path, os.path.basename(alias), dir_fd=directory)
    return folder.absolute(alias)


def drop_alias(folder: Folder, path: bytes) -> None:
    """Delete the link, if it exists."""
    with contextlib.suppress(OSError), folder.entered(ALIASES) as directory:
        os.unlink(os.path.basename(alias_of(path)), dir_fd=directory)
