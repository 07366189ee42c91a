"""Where a file went, as a line of a history: paths are bytes, whatever they hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from services.store.events.archived_file import ArchivedFile, archived_file


@pytest.mark.parametrize("path", [b"a/b.csv", "Größe.csv".encode(), b"\xff\xfe.csv"])
def test_a_path_of_any_bytes_is_read_as_it_was_written(path: bytes) -> None:
    at = datetime.fromtimestamp(1_700_000_000.5, UTC)
    file = ArchivedFile(
        at=at, fate="done", path=path, place=b".done/" + path, version="1", announced="1", ended={"ok": True}
    )
    assert archived_file(json.loads(json.dumps(file.line()))) == file
    assert file.shown["place"].startswith(".done/")
