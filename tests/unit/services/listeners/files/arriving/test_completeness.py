"""When a file is complete, policy by policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import FileSettings
from config.sources import FilesSource
from services.common.file_version import Version
from services.listeners.files.arriving.completeness import (
    CHANGING,
    EMPTY,
    NO_MARKER,
    NOT_RENAMED,
    WRITER_OPEN,
    CompletenessWait,
    Past,
    readiness,
)
from services.listeners.files.folder import Folder
from services.listeners.files.scanning.examine import Examined
from services.listeners.files.scanning.writers import Writers


def _seen(
    writers: Writers = Writers.NONE, *, size: int = 1, renamed: bool = False, marker: str | None = None
) -> Examined:
    return Examined(Version(1, size, 1000), 2000 if renamed else 1000, 0, writers, marker=marker)


def _watch(ready: str, *, quiet: float = 0.01) -> Folder:
    source = FilesSource(path=Path("inbox"), ready=ready, quiet_ms=quiet * 1000)
    return Folder.of("inbox", source, FileSettings(stable_seconds=2))


@pytest.mark.parametrize("ready", ["auto", "rename"])
def test_a_file_with_an_open_writer_waits_however_long_it_stalls(ready: str) -> None:
    assert readiness(_watch(ready), _seen(Writers.SOME, renamed=True), Past(1e6)) == CompletenessWait(WRITER_OPEN)


def test_auto_takes_a_file_that_nobody_writes_to_at_once() -> None:
    assert readiness(_watch("auto"), _seen(), Past(0.01)) is None


def test_auto_gives_a_writer_the_quiet_time_to_come_back() -> None:
    assert readiness(_watch("auto", quiet=0.5), _seen(), Past(0.2)) == CompletenessWait(CHANGING, pytest.approx(0.3))
    assert readiness(_watch("auto", quiet=0.5), _seen(), Past(0.5)) is None


def test_auto_waits_for_stability_where_the_kernel_does_not_tell_of_writers() -> None:
    assert readiness(_watch("auto"), _seen(Writers.UNKNOWN), Past(1.5)) == CompletenessWait(CHANGING, 0.5)
    assert readiness(_watch("auto"), _seen(Writers.UNKNOWN), Past(2)) is None


def test_auto_gives_an_empty_file_a_time_of_grace() -> None:
    assert readiness(_watch("auto"), _seen(size=0), Past(0.5)) == CompletenessWait(EMPTY, 1.5)
    assert readiness(_watch("auto"), _seen(size=0), Past(2)) is None


def test_stable_asks_only_for_how_long_nothing_changed() -> None:
    assert readiness(_watch("stable"), _seen(Writers.SOME), Past(1.0)) == CompletenessWait(CHANGING, 1.0)
    assert readiness(_watch("stable"), _seen(Writers.SOME), Past(2.0)) is None
    assert readiness(_watch("stable", quiet=5), _seen(), Past(2.0)) == CompletenessWait(CHANGING, 3.0)


def test_rename_takes_a_renamed_file_at_once() -> None:
    assert readiness(_watch("rename"), _seen(renamed=True), Past(0.01)) is None


def test_rename_never_takes_a_file_that_was_seen_being_written_under_its_name() -> None:
    assert readiness(_watch("rename"), _seen(), Past(1e6, written_here=True)) == CompletenessWait(NOT_RENAMED)


def test_rename_takes_a_file_of_which_it_cannot_tell_once_it_is_stable() -> None:
    assert readiness(_watch("rename"), _seen(), Past(0.5)) == CompletenessWait(NOT_RENAMED, 1.5)
    assert readiness(_watch("rename"), _seen(), Past(2)) is None


def test_marker_waits_for_a_marker_that_no_earlier_version_used() -> None:
    assert readiness(_watch("marker"), _seen(), Past(1e6)) == CompletenessWait(NO_MARKER)
    assert readiness(_watch("marker"), _seen(marker="1-0-5"), Past(1e6, used_marker="1-0-5")) == CompletenessWait(
        NO_MARKER
    )
    assert readiness(_watch("marker"), _seen(marker="1-0-6"), Past(1e6, used_marker="1-0-5")) is None
    assert readiness(_watch("marker"), _seen(Writers.SOME, size=0, marker="1-0-5"), Past(0.01)) is None
