"""Bad rows are written where they belong, whatever others have put there, and through no link."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sluice.loading.checking.rejects import RejectedRows
from sluice.loading.errors import RefusedFile

NOBODY = 65534
PLACE = Path("rejected", "sub", "a.csv.rejected.csv")


@pytest.fixture
def watch(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    (tmp_path / "outside").mkdir()
    return folder


@pytest.fixture
def outside(watch: Path) -> Path:
    return watch.with_name("outside")


def written(watch: Path, place: Path = PLACE) -> Path:
    with RejectedRows(watch, place, ["a"], [False]) as rejects:
        return rejects.keep()


def theirs(link: Path, target: Path) -> None:
    """A link that another user has made."""
    if os.geteuid() != 0:
        pytest.skip("only root can make links of another user")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    os.lchown(link, NOBODY, NOBODY)


def test_they_are_there_once_they_are_kept_and_gone_after_an_error(watch: Path) -> None:
    assert written(watch) == watch / PLACE
    with pytest.raises(KeyError), RejectedRows(watch, Path("other.rejected.csv"), ["a"], [False]) as rejects:  # noqa: PT012 - what the block does is the test
        rejects.keep()
        raise KeyError
    assert [path.name for path in watch.rglob("*") if path.is_file()] == [PLACE.name]


@pytest.mark.parametrize("link", ["rejected", "rejected/sub"])
def test_a_link_in_the_place_of_a_folder_leads_nowhere(watch: Path, outside: Path, link: str) -> None:
    theirs(watch / link, outside)
    with pytest.raises(RefusedFile, match=os.strerror(errno.ELOOP)):
        written(watch)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe", "folder"])
def test_what_stands_in_the_files_place_stays_as_it_is(watch: Path, outside: Path, kind: str) -> None:
    place = watch / PLACE
    place.parent.mkdir(parents=True)
    victim = outside / "profile"
    if kind == "link":
        victim.write_text("mine")
    match kind:
        case "pipe":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case _:
            place.symlink_to(victim)
    kept = written(watch)
    assert kept != place
    assert kept.read_text().startswith("sluice_place,")
    assert [path.read_text() for path in outside.iterdir()] == (["mine"] if kind == "link" else [])


@contextmanager
def exchanging(one: Path, other: Path) -> Iterator[None]:
    """Two names change places again and again; at every moment something is under each."""
    over = threading.Event()
    library = ctypes.CDLL(None)

    def exchange() -> None:
        while not over.is_set():
            library.renameat2(-100, bytes(one), -100, bytes(other), 2)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="the exchange of two names is Linux's")
def test_links_that_come_and_go_lead_nowhere(watch: Path, outside: Path) -> None:
    (watch / "rejected").mkdir()
    theirs(watch / "link", outside)
    refused = 0
    with exchanging(watch / "rejected", watch / "link"):
        for number in range(2_000):
            try:
                written(watch, Path("rejected", f"{number}.csv"))
            except RefusedFile:
                refused += 1
    assert 0 < refused < 2_000
    assert list(outside.iterdir()) == []


def test_no_descriptor_stays_open(watch: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(20):
        written(watch, Path("rejected", f"{number}.csv"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
