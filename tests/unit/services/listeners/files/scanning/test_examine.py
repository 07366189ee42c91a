"""One look at one file."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from config.settings import FileSettings
from config.sources import FilesSource
from services.common.file_version import Version
from services.listeners.files.folder import Folder
from services.listeners.files.names import Marker
from services.listeners.files.scanning.examine import Examined, Examiner


def _examiner(path: Path, *, marker: Marker | None = None, small_bytes: int = 1000, **options: object) -> Examiner:
    settings = FileSettings(small_bytes=small_bytes)
    return Examiner(Folder.of("inbox", FilesSource(path=path, **options), settings), marker)


def test_a_file_is_seen_with_its_version_and_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    seen = _examiner(tmp_path).examine(b"a")
    assert isinstance(seen, Examined)
    assert seen.version == Version.of((tmp_path / "a").stat())
    assert seen.digest == hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024 - 1, 1024 * 1024, 1024 * 1024 + 1, 3 * 1024 * 1024])
def test_a_digest_is_of_the_whole_file(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    examiner = _examiner(tmp_path, sha256="always")
    seen = examiner.examine(b"a")
    assert isinstance(seen, Examined)
    assert seen.digest == hashlib.sha256(content).hexdigest()
    assert examiner.digest(b"a") == (seen.version, seen.digest)


def test_large_files_are_not_digested_unless_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1001))
    for options in ({"sha256": "small"}, {"sha256": "never"}):
        seen = _examiner(tmp_path, **options).examine(b"a")
        assert isinstance(seen, Examined)
        assert seen.digest is None


def test_looking_leaves_the_access_time_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    os.utime(path, ns=(1_000_000_000, 2_000_000_000))
    _examiner(tmp_path).examine(b"a")
    assert path.stat().st_atime_ns == 1_000_000_000


def test_a_link_is_not_followed_and_a_pipe_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    examiner = _examiner(tmp_path)
    for name in (b"link", b"pipe", b"directory", b"missing", b"a/below"):
        assert examiner.examine(name) is None
    assert examiner.digest(b"link") is None


def test_the_marker_is_seen_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    examiner = _examiner(tmp_path, marker=Marker("{name}.done"))
    seen = examiner.examine(b"a")
    assert isinstance(seen, Examined)
    assert seen.marker is None
    (tmp_path / "a.done").symlink_to("a")
    assert examiner.examine(b"a") == seen, "a link is no marker"
    (tmp_path / "a.done").unlink()
    (tmp_path / "a.done").touch()
    with_marker = examiner.examine(b"a")
    assert isinstance(with_marker, Examined)
    assert with_marker.marker == str(Version.of((tmp_path / "a.done").stat()))
    assert stat.S_ISREG((tmp_path / "a.done").stat().st_mode)
