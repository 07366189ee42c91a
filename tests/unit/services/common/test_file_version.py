"""The version of a file, as it is announced and verified."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from events.errors import Refused
from services.common.file_version import Version, verify_version


@pytest.mark.parametrize("version", [Version(1, 2, 3), Version(2**63, 0, -1), Version(5, 2**40, -(10**18))])
def test_a_version_is_read_back_from_its_text(version: Version) -> None:
    assert Version.parse(str(version)) == version


def test_a_file_that_is_what_was_announced_is_let_through(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x")
    version = str(Version.of(path.stat()))
    path.chmod(0o600)
    verify_version(str(path), version)


@pytest.mark.parametrize("change", ["content", "time", "replaced"])
def test_a_file_that_has_changed_is_refused_in_words(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x")
    version = str(Version.of(path.stat()))
    if change == "content":
        path.write_text("longer")
    elif change == "time":
        os.utime(path, ns=(1, 1))
    else:
        (tmp_path / "b").write_text("x")
        (tmp_path / "b").rename(path)
    with pytest.raises(Refused, match="has changed since it was announced") as refused:
        verify_version(str(path), version)
    assert refused.value.code == "file-changed"
    assert str(path) in refused.value.reason


def test_a_file_that_is_gone_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="is gone") as refused:
        verify_version(str(tmp_path / "a" / "b.csv"), "1-2-3")
    assert refused.value.code == "file-vanished"


def test_importing_it_brings_next_to_nothing_along(checkout: Path) -> None:
    code = "import sys, services.common.file_version; print({'pydantic', 'redis', 'watchfiles'} & sys.modules.keys())"
    answer = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
