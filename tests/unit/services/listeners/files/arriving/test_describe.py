"""What a file's event says."""

from __future__ import annotations

import json
import os
import urllib.parse
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.settings import FileSettings
from config.sources import FilesSource
from events.event import Event, parse_event
from events.untrusted_json import Limits
from services.common.file_version import Version
from services.listeners.files.arriving.describe import Describer, alias_of, drop_alias, iso, make_alias, quoted, tail
from services.listeners.files.folder import Folder
from services.listeners.files.scanning.examine import Examined
from services.listeners.files.scanning.writers import Writers

NOW = datetime(2024, 2, 3, 4, 5, 6, 7000, tzinfo=UTC)
SEEN = Examined(Version(7, 100, 1_706_933_106_000_001_000), 0, 0, Writers.NONE, "ab" * 32)


def _describer(path: Path, **options: object) -> Describer:
    return Describer(Folder.of("inbox", FilesSource(path=path, **options), FileSettings()))


def test_the_journalled_bytes_are_the_events_own(tmp_path: Path) -> None:
    attributes = _describer(tmp_path).event("süß\n'\"/a.csv".encode(), SEEN, NOW)
    raw = b'{"specversion":"1.0","id":"inbox-1-1",' + tail(attributes)
    event = parse_event(raw, limits=Limits(), from_outside=False)
    assert event == Event(
        id="inbox-1-1",
        source="files/inbox",
        type="sluice.file.arrived",
        subject="süß\n'\"/a.csv",
        time=NOW,
        data={
            "watch": "inbox",
            "path": f"{tmp_path}/süß\n'\"/a.csv",
            "name": "a.csv",
            "size": 100,
            "mtime": "2024-02-03T04:05:06.000001Z",
            "sha256": "ab" * 32,
        },
        extensions={"fileversion": "7-100-1706933106000001000"},
    )
    assert json.loads(event.to_json()) == json.loads(raw)


@pytest.mark.parametrize("sha256", ["small", "always"])
def test_the_digest_is_there_where_it_is_wanted(tmp_path: Path, sha256: str) -> None:
    assert _describer(tmp_path, sha256=sha256).event(b"a", SEEN, NOW)["data"]["sha256"] == "ab" * 32


def test_no_digest_is_there_where_it_is_not(tmp_path: Path) -> None:
    assert "sha256" not in _describer(tmp_path, sha256="never").event(b"a", SEEN, NOW)["data"]


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1_000_000_000, "1969-12-31T23:59:59Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (2**63 - 1, "2262-04-11T23:47:16.854775Z"),
        (10**21, "9999-12-31T23:59:59.999999Z"),
        (-(10**21), "0001-01-01T00:00:00Z"),
    ],
)
def test_any_file_time_can_be_written(ns: int, text: str) -> None:
    assert iso(ns) == text


@pytest.mark.parametrize("path", [b"caf\xe9.csv", b"100%\xff/\xc3\xa9\xed\xa0\x80.csv", bytes(range(1, 256))])
def test_a_path_that_is_not_utf_8_can_be_had_back(path: bytes) -> None:
    text = quoted(path)
    text.encode("utf-8")
    assert urllib.parse.unquote_to_bytes(text) == path
    assert json.loads(json.dumps(text)) == text


def test_an_alias_opens_its_file_and_goes_when_told(tmp_path: Path) -> None:
    folder = Folder.of("inbox", FilesSource(path=tmp_path), FileSettings())
    for path in (b"caf\xe9.csv", b"sub/" + b"\xe9" * 200 + b".csv"):
        absolute = folder.absolute(path)
        target = Path(os.fsdecode(absolute))
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path)
        alias = make_alias(folder, path)
        assert make_alias(folder, path) == alias
        assert Path(os.fsdecode(alias)).read_bytes() == path
        assert Path(os.fsdecode(alias)).suffix == ".csv"
        assert len(alias_of(path).rpartition(b"/")[2]) <= 255
        drop_alias(folder, path)
        drop_alias(folder, path)
        assert not os.path.lexists(alias)
