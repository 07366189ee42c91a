"""What `sluice.open_file` opens: the announced version of a file below a folder, and nothing else in its place."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import sluice.files
import sluice.system_calls
from sluice import FileChanged, FileRefused, open_file

SECRET = b"client_secret"

ATTEMPTS = 2_000

LINKING = """
import os, sys
secret, inbox = sys.argv[1:]
place = os.open(os.path.dirname(secret), os.O_PATH), os.open(inbox, os.O_PATH)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    os.link(os.path.basename(secret), "a.csv", src_dir_fd=place[0], dst_dir_fd=place[1])
except PermissionError:
    print("denied")
"""


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    (tmp_path / "secret.csv").write_bytes(SECRET)
    monkeypatch.setenv("SLUICE_FOLDERS", json.dumps([str(folder)]))
    return folder


@pytest.fixture(params=["kernel", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By openat2, and as on a system without it."""
    if request.param == "walk":
        monkeypatch.setattr(sluice.system_calls, "openat2", lambda _directory, _relative: None)
    return str(request.param)


def version(path: Path) -> str:
    found = path.stat()
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


def put(path: Path, content: bytes = b"a\n1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def content(file: Any, **options: Any) -> bytes:
    with open_file(file, **options) as opened:
        return opened.read()


class TestAFile:
    def test_in_a_watched_folder_is_opened(self, inbox: Path, way: str) -> None:
        assert content(put(inbox / "a.csv")) == b"a\n1\n"
        assert content(str(put(inbox / "deep" / "er" / "b.csv", b"b"))) == b"b"

    def test_elsewhere_is_refused_with_the_folders_that_there_are(self, inbox: Path, way: str) -> None:
        for path in (
            inbox.parent / "secret.csv",
            inbox / ".." / "secret.csv",
            put(inbox.with_name("inbox-not") / "a.csv"),
            inbox,
            Path("/etc/passwd"),
            Path("/proc/self/environ"),
            Path(f"/proc/self/cwd/{inbox}/a.csv"),
            Path("/dev/stdin"),
        ):
            with pytest.raises(FileRefused, match="lies in no watched folder") as caught:
                open_file(path)
            assert str(inbox) in str(caught.value)

    def test_that_is_a_link_is_refused(self, inbox: Path, way: str) -> None:
        (inbox / "a.csv").symlink_to(inbox.parent / "secret.csv")
        (inbox / "b.csv").symlink_to(put(inbox / "c.csv"))
        for name in ("a.csv", "b.csv"):
            with pytest.raises(FileRefused, match="symbolic link"):
                open_file(inbox / name)

    def test_behind_a_linked_directory_is_refused(self, inbox: Path, way: str) -> None:
        (inbox / "deep").symlink_to(inbox.parent, target_is_directory=True)
        with pytest.raises(FileRefused, match="symbolic link"):
            open_file(inbox / "deep" / "secret.csv")

    def test_that_is_no_regular_file_is_refused_without_waiting(self, inbox: Path, way: str) -> None:
        os.mkfifo(inbox / "a.csv")
        (inbox / "b.csv").mkdir()
        for name in ("a.csv", "b.csv"):
            with pytest.raises(FileRefused, match="not a regular file"):
                open_file(inbox / name)

    def test_that_is_a_socket_or_a_device_is_refused(
        self, inbox: Path, way: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(inbox)  # the path of a socket may be short only
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("a.csv")
            with pytest.raises((FileRefused, OSError), match=r"not a regular file|No such device"):
                open_file(inbox / "a.csv")
        if os.geteuid() == 0:
            os.mknod(inbox / "b.csv", 0o600 | stat.S_IFCHR, os.makedev(1, 9))  # urandom
            with pytest.raises((FileRefused, PermissionError)):
                open_file(inbox / "b.csv")

    @pytest.mark.parametrize("name", ["a.csv\0.gz", "a.csv\0/b", "\0", "\ud800.csv"])
    def test_whose_name_no_file_can_have_is_refused(self, inbox: Path, way: str, name: str) -> None:
        put(inbox / "a.csv")
        with pytest.raises(FileRefused, match="no file can have this name"):
            open_file(f"{inbox}/{name}")

    def test_with_several_names_is_refused_where_anybody_may_give_it_one(
        self, inbox: Path, way: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secret = inbox.parent / "secret.csv"
        secret.chmod(0o600)
        os.link(secret, inbox / "a.csv")
        monkeypatch.setattr(sluice.files, "_protects_hard_links", lambda: False)
        with pytest.raises(FileRefused, match="it has 2 names"):
            open_file(inbox / "a.csv")
        secret.chmod(0o644)  # whoever made the link may read it anyway
        assert content(inbox / "a.csv") == SECRET
        secret.chmod(0o600)
        monkeypatch.setattr(sluice.files, "_protects_hard_links", lambda: True)
        assert content(inbox / "a.csv") == SECRET

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
    def test_that_another_user_may_not_read_cannot_be_linked_by_them(self, inbox: Path) -> None:
        if not sluice.files._protects_hard_links():
            pytest.skip("this system lets anybody link any file")
        secret = inbox.parent / "secret.csv"
        secret.chmod(0o600)
        inbox.chmod(0o777)
        command = [sys.executable, "-c", LINKING, str(secret), str(inbox)]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "denied" in said.stdout, said.stderr
        assert list(inbox.iterdir()) == []

    def test_that_is_gone_is_told_as_usual(self, inbox: Path, way: str) -> None:
        put(inbox / "file")
        for path in (inbox / "a.csv", inbox / "no" / "a.csv"):
            with pytest.raises(FileNotFoundError, match=str(path)):
                open_file(path)
        with pytest.raises(NotADirectoryError):
            open_file(inbox / "file" / "a.csv")

    def test_below_a_folder_that_is_itself_reached_by_a_link_is_opened(self, inbox: Path, way: str) -> None:
        link = inbox.with_name("link")
        link.symlink_to(inbox, target_is_directory=True)
        put(inbox / "a.csv")
        assert content(link / "a.csv", folders=[link]) == b"a\n1\n"
        assert content(inbox / "a.csv", folders=[link]) == b"a\n1\n"

    def test_whose_name_is_not_utf8_is_opened_by_sluices_own_link_only(self, inbox: Path, way: str) -> None:
        real = os.fsencode(inbox) + b"/\xff.csv"
        Path(os.fsdecode(real)).write_bytes(b"odd")
        names = inbox / ".sluice" / "names"
        names.mkdir(parents=True)
        (names / "%FF.csv").symlink_to(os.fsdecode(b"../../\xff.csv"))
        (names / "evil.csv").symlink_to("../../../secret.csv")
        (names / "worse.csv").symlink_to(inbox.parent / "secret.csv")
        assert content(names / "%FF.csv") == b"odd"
        for name in ("evil.csv", "worse.csv"):
            with pytest.raises(FileRefused):
                open_file(names / name)


class TestTheVersion:
    def test_must_be_the_announced_one(self, inbox: Path) -> None:
        path = put(inbox / "a.csv")
        announced = version(path)
        assert content(path, version=announced) == b"a\n1\n"
        put(path, b"something else")
        with pytest.raises(FileChanged, match="has changed since it was announced"):
            open_file(path, version=announced)

    def test_of_the_run_is_known(self, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, other = put(inbox / "a.csv"), put(inbox / "b.csv")
        monkeypatch.setenv("SLUICE_FILE", json.dumps({"path": str(path), "version": version(path)}))
        put(path, b"something else")
        with pytest.raises(FileChanged):
            open_file(path)
        assert content(other) == b"a\n1\n"

    @pytest.mark.parametrize("as_event", [False, True])
    def test_stands_in_the_event_or_its_data(self, inbox: Path, *, as_event: bool) -> None:
        path = put(inbox / "a.csv")
        os.utime(path, ns=(0, 1_700_000_000_123_456_789))
        data = {"path": str(path), "size": 4, "mtime": "2023-11-14T22:13:20.123456Z"}
        event = {"type": "sluice.file.arrived", "data": data, "extensions": {"fileversion": version(path)}}
        given = event if as_event else data
        assert content(given) == b"a\n1\n"
        os.utime(path, ns=(0, 1_700_000_000_123_457_000))
        with pytest.raises(FileChanged):
            open_file(given)
        put(path, b"longer than before")
        with pytest.raises(FileChanged):
            open_file(given)

    def test_that_changes_while_it_is_read_is_told_at_the_end(self, inbox: Path) -> None:
        path = put(inbox / "a.csv")
        with pytest.raises(FileChanged, match="changed while it was read"), open_file(path) as opened:  # noqa: PT012 - what the block does is the test
            opened.read(1)
            put(path, b"a\n2\n3\n")
        with pytest.raises(FileChanged), open_file(path) as opened:  # noqa: PT012 - what the block does is the test
            put(path, b"b")
            opened.close()  # as a wrapper around it does

    def test_stays_readable_when_another_file_takes_its_place(self, inbox: Path) -> None:
        path = put(inbox / "a.csv", b"old")
        with open_file(path, version=version(path)) as opened:
            put(inbox / "new", b"new").replace(path)
            assert opened.read() == b"old"

    def test_is_no_reason_to_hide_what_went_wrong_in_the_block(self, inbox: Path) -> None:
        path = put(inbox / "a.csv")
        with pytest.raises(KeyError), open_file(path):  # noqa: PT012 - what the block does is the test
            put(path, b"b")
            raise KeyError


class TestTheFolders:
    def test_must_be_named_where_prefect_started_the_run(self, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = put(inbox / "a.csv")
        monkeypatch.delenv("SLUICE_FOLDERS")
        assert content(path) == b"a\n1\n"
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "x")
        with pytest.raises(FileRefused, match="set SLUICE_FOLDERS"):
            open_file(path)

    @pytest.mark.parametrize("named", ["/data/inbox", '{"a": 1}', "[1]"])
    def test_in_another_form_are_told(self, inbox: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
        monkeypatch.setenv("SLUICE_FOLDERS", named)
        with pytest.raises(FileRefused, match="not a JSON list"):
            open_file(inbox / "a.csv")

    @pytest.mark.parametrize("event", [{}, {"data": None}, {"path": 1}, {"data": {"name": "a"}}])
    def test_are_not_asked_for_what_is_no_event_of_a_file(self, event: dict[str, Any]) -> None:
        with pytest.raises(FileRefused, match="no event of a file"):
            open_file(event)


@contextmanager
def swapping(*turns: Callable[[], object]) -> Iterator[None]:
    """Do the turns again and again, in their order, until the block ends."""
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for turn in turns:
                turn()

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class TestADropperWhoSwaps:
    """Each attempt may fail, in its own words; none reads what lies outside."""

    def attempts(self, path: Path, **options: Any) -> set[bytes]:
        read = set()
        for _ in range(ATTEMPTS):
            with contextlib.suppress(FileRefused, FileChanged, FileNotFoundError, NotADirectoryError):
                read.add(content(path, **options))
        return read

    def test_the_file_for_a_link_gets_nothing(self, inbox: Path, way: str) -> None:
        path, link = inbox / "a.csv", inbox / "link"

        def to_link() -> None:
            link.symlink_to(inbox.parent / "secret.csv")
            link.replace(path)

        def to_file() -> None:
            put(inbox / "new").replace(path)

        with swapping(to_link, to_file):
            assert self.attempts(path) <= {b"a\n1\n"}

    def test_the_file_for_a_link_after_the_announcement_gets_nothing(self, inbox: Path, way: str) -> None:
        path = put(inbox / "a.csv")
        announced, real, link = version(path), inbox / "real", inbox / "link"
        path.rename(real)

        def to_link() -> None:
            link.symlink_to(inbox.parent / "secret.csv")
            link.replace(path)

        def to_file() -> None:
            with contextlib.suppress(FileExistsError):
                os.link(real, link)
            link.replace(path)

        with swapping(to_link, to_file):
            assert self.attempts(path, version=announced) <= {b"a\n1\n"}

    def test_a_directory_for_a_link_gets_nothing(self, inbox: Path, way: str) -> None:
        path = put(inbox / "deep" / "secret.csv")
        deep, aside, link = inbox / "deep", inbox / "aside", inbox / "link"
        link.symlink_to(inbox.parent, target_is_directory=True)

        def to_link() -> None:
            deep.rename(aside)
            link.rename(deep)

        def back() -> None:
            deep.rename(link)
            aside.rename(deep)

        with swapping(to_link, back):
            assert self.attempts(path) <= {b"a\n1\n"}


def test_descriptors_are_not_left_open(inbox: Path, way: str) -> None:
    path = put(inbox / "deep" / "a.csv")
    (inbox / "link").symlink_to("deep")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        content(path)
        for bad in (inbox / "link" / "a.csv", inbox / "link", inbox / "deep", inbox / "gone" / "b"):
            with contextlib.suppress(FileRefused, FileNotFoundError):
                content(bad)
        with contextlib.suppress(FileChanged):
            content(path, version="1-2-3")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
