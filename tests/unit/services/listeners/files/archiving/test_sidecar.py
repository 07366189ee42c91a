"""What people read beside a failed file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from config.settings import FileSettings
from config.sources import FilesSource
from services.listeners.files.archiving.sidecar import sidecar_text
from services.listeners.files.folder import Folder

AT = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


def _sidecar(finished: dict[str, Any], path: bytes = b"sub/a.csv", **options: Any) -> dict[str, Any]:
    folder = Folder.of("inbox", FilesSource(path=Path("/in"), **options), FileSettings())
    content: dict[str, Any] = json.loads(sidecar_text(folder, path, "inbox-ab-1", finished, at=AT))
    return content


def test_it_says_what_happened_when_and_what_to_do_and_where_to_read_more() -> None:
    run = {
        "run_id": "r1", "url": "http://ui/r1", "rule": "ingest", "deployment": "ingest-file/default",
        "state_type": "FAILED", "state_name": "Failed", "message": "row 7: not a number",
    }  # fmt: skip
    fine = run | {"run_id": "r0", "url": "http://ui/r0", "state_type": "COMPLETED", "state_name": "Completed"}
    content = _sidecar({"runs": [fine, run], "dead": []})
    assert content["file"] == "sub/a.csv"
    assert content["what_happened"] == "The run of ingest-file/default ended as Failed: row 7: not a number"
    assert content["when"] == "2024-01-02T03:04:05+00:00"
    assert content["run_url"] == "http://ui/r1"
    assert "http://ui/r1" in content["what_to_do"]
    assert "/in/sub/a.csv" in content["what_to_do"]
    assert content["event_id"] == "inbox-ab-1"


def test_it_says_which_rule_could_not_act() -> None:
    letter = {"letter_id": "l", "rule": "ingest", "code": "template", "reason": "'event.data.x' is undefined"}
    content = _sidecar({"runs": [], "dead": [letter]})
    assert content["what_happened"] == "The rule ingest could not act on the file: 'event.data.x' is undefined"
    assert content["run_url"] is None


def test_it_reminds_of_the_marker() -> None:
    assert "with its marker" in _sidecar({}, ready="marker")["what_to_do"]


def test_it_is_readable_whatever_the_end_looks_like() -> None:
    for finished in ({}, {"runs": None, "dead": None}, {"runs": ["x"], "dead": [1]}, {"runs": [{}], "dead": [{}]}):
        assert _sidecar(finished, path=b"caf\xe9\n.csv")["what_happened"]
