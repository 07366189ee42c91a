"""Folders that others may change are entered without following a link of theirs."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.directories import enter


def entered(root: Path, relative: str, **how: bool) -> Path:
    descriptor = enter(os.fsencode(root), os.fsencode(relative), **how)
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    finally:
        os.close(descriptor)


def refused(root: Path, relative: str, **how: bool) -> int | None:
    with pytest.raises(OSError, match=r".") as caught:
        enter(os.fsencode(root), os.fsencode(relative), **how)
    return caught.value.errno


@pytest.fixture
def none_left_open() -> Callable[[], int]:
    return lambda: sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_folder_below_is_entered_and_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "a" / "b").mkdir(parents=True)
    (tmp_path / "root").symlink_to("real")
    assert entered(tmp_path / "root", "a/b") == tmp_path / "real" / "a" / "b"
    assert entered(tmp_path / "root", "") == tmp_path / "real"


@pytest.mark.parametrize("relative", ["..", "a/../b", "a//b", ".", "/a", "a/"])
def test_no_name_leads_up_or_nowhere(tmp_path: Path, relative: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert refused(tmp_path, relative) == errno.EXDEV


def test_a_link_on_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").symlink_to(tmp_path / "other")
    assert refused(tmp_path / "root", "a") == errno.ELOOP
    assert refused(tmp_path / "root", "a", make=True) == errno.ELOOP


def test_a_link_of_ones_own_is_followed_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "other" / "inner").mkdir(parents=True)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").symlink_to("../other")
    assert entered(tmp_path / "root", "a/inner", own_links=True) == tmp_path / "other" / "inner"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a link to another user")
def test_a_link_of_another_user_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "a").symlink_to("other")
    os.lchown(tmp_path / "a", 12345, 12345)
    assert refused(tmp_path, "a", own_links=True) == errno.ELOOP


def test_what_is_missing_is_made_with_the_rights_of_its_parent(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o751)
    assert refused(root, "a/b") == errno.ENOENT
    assert entered(root, "a/b", make=True) == root / "a" / "b"
    assert [stat.S_IMODE(one.stat().st_mode) for one in (root / "a", root / "a" / "b")] == [0o751, 0o751]
    assert entered(root, "a/b", make=True) == root / "a" / "b"


def test_a_file_on_the_way_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    assert refused(tmp_path, "a/b") == errno.ENOTDIR
    assert refused(tmp_path, "a", make=True) == errno.ENOTDIR


def test_no_descriptor_stays_open(tmp_path: Path, none_left_open: Callable[[], int]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to("/")
    before = none_left_open()
    for relative in ("a", "a/gone", "a/link/etc", "a/.."):
        try:
            os.close(enter(os.fsencode(tmp_path), os.fsencode(relative)))
        except OSError:
            continue
    assert none_left_open() == before
