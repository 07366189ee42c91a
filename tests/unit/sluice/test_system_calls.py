"""Opening below a folder by the kernel's own call, or a step for each directory."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

import sluice.files
import sluice.system_calls
from sluice import open_file
from sluice.system_calls import open_beneath

SECRET = b"client_secret"


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    (tmp_path / "secret.csv").write_bytes(SECRET)
    monkeypatch.setenv("SLUICE_FOLDERS", json.dumps([str(folder)]))
    return folder


def put(path: Path, content: bytes = b"a\n1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def content(file: Any, **options: Any) -> bytes:
    with open_file(file, **options) as opened:
        return opened.read()


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="Linux only")
def test_this_kernel_has_the_call_that_the_other_tests_take_away(inbox: Path) -> None:
    put(inbox / "a.csv")
    directory = os.open(inbox, os.O_PATH)
    try:
        descriptor = sluice.system_calls.openat2(directory, b"a.csv")
    finally:
        os.close(directory)
    if descriptor is None:
        pytest.skip("the kernel has no openat2")
    os.close(descriptor)


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize(
    "relative", [b"", b".", b"..", b"../secret.csv", b"a/../../secret.csv", b"/etc/passwd", b"a//b"]
)
def test_a_path_with_a_way_out_is_no_path_below(inbox: Path, relative: bytes, *, kernel: bool) -> None:
    with pytest.raises(OSError, match="ross-device") as caught:
        open_beneath(os.fsencode(inbox), relative, kernel=kernel)
    assert caught.value.errno == errno.EXDEV
