"""Whoever may write to a watch, and puts links or pipes where a file is archived, gets nothing outside of it."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from config.settings import FileSettings
from config.sources import FilesSource
from services.common.file_version import Version
from services.listeners.files.archiving.file_mover import Mover, MoveResult
from services.listeners.files.arriving.describe import drop_alias, make_alias
from services.listeners.files.folder import Folder
from services.listeners.files.watching.root import Cookie
from sluice.directories import enter

EVENT = "inbox-0011223344556677-5"
NOBODY = 65534
SIDECAR = f'"{EVENT}"'.encode()


@pytest.fixture
def box(tmp_path: Path) -> Path:
    path = tmp_path / "inbox"
    path.mkdir()
    (tmp_path / "outside").mkdir()
    return path


@pytest.fixture
def outside(box: Path) -> Path:
    """A folder that the dropper cannot write to, and Sluice can."""
    return box.with_name("outside")


def folder(box: Path) -> Folder:
    return Folder.of("inbox", FilesSource(path=box), FileSettings())


def dropped(box: Path, name: str = "a.csv") -> Version:
    path = box / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    return Version.of(path.stat())


def theirs(link: Path, target: Path) -> None:
    """A link that another user has made."""
    if os.geteuid() != 0:
        pytest.skip("only root can make links of another user")
    link.symlink_to(target)
    os.lchown(link, NOBODY, NOBODY)


@pytest.mark.parametrize("link", ["done", "done/x", "done/x/y"])
def test_a_link_in_the_place_of_an_archive_folder_leads_nowhere(box: Path, outside: Path, link: str) -> None:
    version = dropped(box, "x/y/a.csv")
    (box / link).parent.mkdir(parents=True, exist_ok=True)
    theirs(box / link, outside)
    done = Mover(folder(box)).move(b"x/y/a.csv", version, EVENT, b"done")
    assert (done.fate, done.reason) == (MoveResult.DENIED, os.strerror(errno.ELOOP))
    assert list(outside.iterdir()) == []
    assert (box / "x/y/a.csv").read_text() == "x"


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="Linux only")
def test_a_link_that_sluices_own_user_made_is_the_archive_folder(box: Path, outside: Path) -> None:
    version = dropped(box)
    (box / "done").symlink_to(outside)
    assert Mover(folder(box)).move(b"a.csv", version, EVENT, b"done").fate is MoveResult.MOVED
    assert (outside / "a.csv").read_text() == "x"


@pytest.mark.parametrize("work", ["move", "delete", "marker"])
def test_a_link_in_the_place_of_the_files_folder_reaches_no_other_file(box: Path, outside: Path, work: str) -> None:
    version = dropped(outside)  # the very version, so that nothing but the link is in the way
    (box / "sub").symlink_to(outside)
    mover = Mover(folder(box))
    if work == "move":
        assert mover.move(b"sub/a.csv", version, EVENT, b"done").fate is MoveResult.GONE
    elif work == "delete":
        assert mover.delete(b"sub/a.csv", version, EVENT).fate is MoveResult.GONE
    else:
        mover.drop_marker(b"sub/a.csv", str(version))
    assert [path.name for path in outside.iterdir()] == ["a.csv"]
    assert not mover.is_other(b"sub/a.csv", version)


def test_a_link_in_the_place_of_a_draft_is_not_written_through(box: Path, outside: Path) -> None:
    version = dropped(box)
    victim = outside / "profile"
    victim.write_text("mine")
    (box / "failed").mkdir()
    (box / "failed" / f".sluice-draft-{EVENT}").symlink_to(victim)
    assert Mover(folder(box)).move(b"a.csv", version, EVENT, b"failed", SIDECAR).fate is MoveResult.MOVED
    assert victim.read_text() == "mine"
    assert (box / "failed" / "a.csv.error.json").read_bytes() == SIDECAR


def test_a_pipe_in_the_place_of_a_sidecar_holds_nobody_up(box: Path) -> None:
    version = dropped(box)
    (box / "failed").mkdir()
    os.mkfifo(box / "failed" / "a.csv.error.json")
    done = Mover(folder(box)).move(b"a.csv", version, EVENT, b"failed", SIDECAR)
    assert (done.fate, done.target) == (MoveResult.MOVED, b"failed/a~2.csv")


def test_a_link_in_the_place_of_a_sidecar_is_not_read_and_stays(box: Path, outside: Path) -> None:
    version = dropped(box)
    (outside / "secret").write_bytes(SIDECAR)
    (box / "failed").mkdir()
    (box / "failed" / "a.csv.error.json").symlink_to(outside / "secret")
    done = Mover(folder(box)).move(b"a.csv", version, EVENT, b"failed", SIDECAR)
    assert done.target == b"failed/a~2.csv"
    assert (outside / "secret").read_bytes() == SIDECAR


@pytest.mark.skipif(sys.platform != "linux", reason="the exchange of two names is Linux's")
def test_links_that_come_and_go_lead_nowhere(box: Path, outside: Path) -> None:
    (box / "done").mkdir()
    theirs(box / "link", outside)
    over = threading.Event()
    library = ctypes.CDLL(None)

    def swap() -> None:
        while not over.is_set():  # RENAME_EXCHANGE: at every moment one of the two is there
            library.renameat2(-100, bytes(box / "done"), -100, bytes(box / "link"), 2)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(2_000):
            version = dropped(box, f"{number}.csv")
            Mover(folder(box)).move(b"%d.csv" % number, version, EVENT, b"done", SIDECAR if number % 2 else None)
    finally:
        over.set()
        thread.join()
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("link", [".sluice", ".sluice/names"])
def test_a_link_in_the_place_of_the_folder_of_names_leads_nowhere(box: Path, outside: Path, link: str) -> None:
    (box / link).parent.mkdir(exist_ok=True)
    (box / link).symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links"):
        make_alias(folder(box), b"\xff.csv")
    (outside / "%FF.csv").touch()
    drop_alias(folder(box), b"\xff.csv")
    assert [path.name for path in outside.iterdir()] == ["%FF.csv"]


def test_a_link_in_the_place_of_the_watchers_probe_makes_no_file(box: Path, outside: Path) -> None:
    cookie = Cookie(folder(box))
    (box / os.fsdecode(cookie.name)).symlink_to(outside / "made")
    assert cookie.drop() is not None
    assert list(outside.iterdir()) == []


ENTERING: dict[str, Callable[[Path], object]] = {
    "up": lambda box: enter(bytes(box), b"..", make=True),
    "up from below": lambda box: enter(bytes(box), b"a/../../outside", make=True),
    "from the root": lambda box: enter(bytes(box), b"/etc"),
    "here": lambda box: enter(bytes(box), b"./a", make=True),
}


@pytest.mark.parametrize("way", ENTERING)
def test_no_path_leads_out_of_a_directory(box: Path, way: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="ross-device"):
        ENTERING[way](box)
    assert list(box.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_no_descriptor_stays_open(box: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(20):
        version = dropped(box, f"x/{number}.csv")
        Mover(folder(box)).move(b"x/%d.csv" % number, version, EVENT, b"done", SIDECAR)
        Mover(folder(box)).move(b"gone/%d.csv" % number, version, EVENT, b"done")
        Mover(folder(box)).delete(b"x/none.csv", version, EVENT)
        make_alias(folder(box), b"\xff%d.csv" % number)
        drop_alias(folder(box), b"\xff%d.csv" % number)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
