"""What the kernel says of writers, and that asking harms nobody."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.listeners.files.scanning.writers import Writers, held_off, writers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of writers")


def _ask(path: Path) -> Writers:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return writers(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("mode", ["w", "a", "r+"])
def test_a_file_that_is_open_for_writing_has_writers(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    assert _ask(path) is Writers.NONE
    with path.open(mode):
        assert _ask(path) is Writers.SOME
    with path.open("r"):
        assert _ask(path) is Writers.NONE


def test_a_writer_that_comes_while_others_are_held_off_waits_and_the_asking_process_lives(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    descriptor = os.open(path, os.O_RDONLY)
    with held_off(descriptor) as found:
        assert found is Writers.NONE
        writer = subprocess.Popen([sys.executable, "-c", f"open({str(path)!r}, 'a').write('y')"])
        time.sleep(0.5)  # nothing is to happen
        assert writer.poll() is None
        assert path.read_text() == "x"
    assert writer.wait() == 0
    assert path.read_text() == "xy"
    os.close(descriptor)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES, errno.ENOLCK])
def test_a_file_system_without_an_answer_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    (tmp_path / "a").write_text("x")
    assert _ask(tmp_path / "a") is Writers.UNKNOWN
