"""Putting files away: never over another, never another version, and whole at whatever step a crash comes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.settings import FileSettings
from config.sources import FilesSource
from services.common.file_version import Version
from services.listeners.files.archiving import rename
from services.listeners.files.archiving.file_mover import Mover, MoveResult, PutAway, fit
from services.listeners.files.folder import Folder
from services.listeners.files.names import SIDECAR
from tests.support.file_steps import interfere

EVENT = "inbox-0011223344556677-5"


class _Crash(Exception):
    pass


@pytest.fixture
def box(tmp_path: Path) -> Path:
    path = tmp_path / "inbox"
    path.mkdir()
    return path


def _mover(box: Path) -> Mover:
    return Mover(Folder.of("inbox", FilesSource(path=box), FileSettings()))


@contextmanager
def _crash_at(step: str) -> Iterator[None]:
    def crash() -> None:
        raise _Crash

    with pytest.MonkeyPatch.context() as patch:
        interfere(step, crash, patch=patch.setattr)
        with pytest.raises(_Crash):
            yield


def _file(box: Path, name: str = "a.csv", content: str = "x") -> Version:
    path = box / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return Version.of(path.stat())


def _tree(box: Path) -> dict[str, str]:
    return {str(path.relative_to(box)): path.read_text() for path in box.rglob("*") if path.is_file()}


def test_a_file_moves_to_the_same_place_below_the_folder(box: Path) -> None:
    version = _file(box, "x/y/a.csv")
    assert _mover(box).move(b"x/y/a.csv", version, EVENT, b"done") == PutAway(MoveResult.MOVED, b"done/x/y/a.csv")
    assert _tree(box) == {"done/x/y/a.csv": "x"}


def test_a_taken_name_is_left_alone(box: Path) -> None:
    _file(box, "done/a.csv", "old")
    _file(box, "done/a~2.csv", "older")
    version = _file(box)
    assert _mover(box).move(b"a.csv", version, EVENT, b"done").target == b"done/a~3.csv"
    assert _tree(box) == {"done/a.csv": "old", "done/a~2.csv": "older", "done/a~3.csv": "x"}


def test_a_name_that_is_taken_at_the_last_moment_is_left_alone(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = _file(box)

    def take() -> None:
        if not (box / "done" / "a.csv").exists():
            _file(box, "done/a.csv", "somebody else's")

    interfere("staged", take, patch=monkeypatch.setattr)
    mover = _mover(box)
    assert mover.move(b"a.csv", version, EVENT, b"done").fate is MoveResult.BUSY
    assert _tree(box) == {"a.csv": "x", "done/a.csv": "somebody else's"}
    assert mover.move(b"a.csv", version, EVENT, b"done").target == b"done/a~2.csv"
    assert _tree(box) == {"done/a.csv": "somebody else's", "done/a~2.csv": "x"}


def test_a_taken_sidecar_is_left_alone(box: Path) -> None:
    _file(box, "failed/a.csv.error.json", '"another-event"')
    version = _file(box)
    done = _mover(box).move(b"a.csv", version, EVENT, b"failed", f'"{EVENT}"'.encode())
    assert done.target == b"failed/a~2.csv"
    assert (box / "failed" / "a~2.csv.error.json").read_text() == f'"{EVENT}"'


@pytest.mark.parametrize("step", ["reserved", "staged", "moved"])
@pytest.mark.parametrize("sidecar", [None, f'{{"event_id": "{EVENT}"}}'.encode()], ids=["done", "failed"])
def test_a_move_that_a_crash_cut_short_is_completed(box: Path, step: str, sidecar: bytes | None) -> None:
    version = _file(box)
    with _crash_at(step):
        _mover(box).move(b"a.csv", version, EVENT, b"away", sidecar)
    assert _mover(box).move(b"a.csv", version, EVENT, b"away", sidecar) == PutAway(MoveResult.MOVED, b"away/a.csv")
    expected = {"away/a.csv": "x"} | ({"away/a.csv.error.json": sidecar.decode()} if sidecar else {})
    assert _tree(box) == expected


@pytest.mark.parametrize("step", ["staged", "deleted"])
def test_a_deletion_that_a_crash_cut_short_is_completed(box: Path, step: str) -> None:
    version = _file(box)
    with _crash_at(step):
        _mover(box).delete(b"a.csv", version, EVENT)
    assert _mover(box).delete(b"a.csv", version, EVENT).fate in {MoveResult.MOVED, MoveResult.GONE}
    assert _tree(box) == {}


@pytest.mark.parametrize("content", ["longer", "y"])
def test_another_version_stays_where_it_is(box: Path, content: str) -> None:
    version = _file(box)
    os.utime(box / "a.csv", ns=(1, 1))
    _file(box, content=content)
    assert _mover(box).move(b"a.csv", version, EVENT, b"failed", b"{}").fate is MoveResult.CHANGED
    assert _mover(box).delete(b"a.csv", version, EVENT).fate is MoveResult.CHANGED
    assert _tree(box) == {"a.csv": content}


def test_a_version_that_comes_between_the_look_and_the_rename_is_given_back(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = _file(box)
    real = os.rename

    def replaced_first(source: bytes, target: bytes, **directories: int) -> None:
        _file(box, "new", "a later version")
        real(box / "new", box / "a.csv")
        real(source, target, **directories)

    monkeypatch.setattr(os, "rename", replaced_first)
    assert _mover(box).move(b"a.csv", version, EVENT, b"failed", b"{}").fate is MoveResult.CHANGED
    assert _tree(box) == {"a.csv": "a later version"}


def test_a_version_that_a_crash_left_staged_is_given_back_beside_a_newer_one(box: Path) -> None:
    version = _file(box)
    _file(box, f".sluice-moving-{EVENT}", "not the version that ran")
    _file(box, "a.csv", "the newest")
    assert _mover(box).move(b"a.csv", version, EVENT, b"done").fate is MoveResult.CHANGED
    assert _tree(box) == {"a.csv": "the newest", "a~2.csv": "not the version that ran"}


def test_a_file_that_is_gone_leaves_no_sidecar(box: Path) -> None:
    version = _file(box)
    (box / "a.csv").unlink()
    assert _mover(box).move(b"a.csv", version, EVENT, b"failed", b"{}").fate is MoveResult.GONE
    assert _tree(box) == {}


def test_a_file_that_somebody_writes_to_is_asked_for_again(box: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells of writers")
    version = _file(box)
    with (box / "a.csv").open("a"):
        assert _mover(box).move(b"a.csv", version, EVENT, b"failed", b"{}").fate is MoveResult.BUSY
        assert _mover(box).delete(b"a.csv", version, EVENT).fate is MoveResult.BUSY
    assert _tree(box) == {"a.csv": "x"}
    assert _mover(box).move(b"a.csv", version, EVENT, b"failed", b"{}").fate is MoveResult.MOVED


def test_what_is_in_the_folders_way_is_named(box: Path) -> None:
    version = _file(box)
    _file(box, "done", "a file of that name")
    assert _mover(box).move(b"a.csv", version, EVENT, b"done") == PutAway(MoveResult.DENIED, reason="Not a directory")
    assert _tree(box) == {"a.csv": "x", "done": "a file of that name"}


@pytest.mark.parametrize("method", ["link", "placeholder"])
def test_without_the_systems_help_nothing_is_overwritten_either(
    box: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(rename, "_RENAME", None)
    if method == "placeholder":

        def refuse(*_: object, **__: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(os, "link", refuse)
    _file(box, "done/a.csv", "old")
    version = _file(box)
    assert _mover(box).move(b"a.csv", version, EVENT, b"done").target == b"done/a~2.csv"
    assert _tree(box) == {"done/a.csv": "old", "done/a~2.csv": "x"}
    directory = os.open(box / "done", os.O_RDONLY)
    with pytest.raises(FileExistsError):
        rename.rename_new(rename.FilePlace(directory, b"a~2.csv"), rename.FilePlace(directory, b"a.csv"))
    os.close(directory)
    assert _tree(box) == {"done/a.csv": "old", "done/a~2.csv": "x"}


def test_a_folder_on_another_file_system_gets_a_whole_copy(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == box.stat().st_dev:
        pytest.skip("there is no second file system here (/dev/shm)")
    target = other / f"sluice-test-{os.getpid()}"
    target.mkdir()
    try:
        (box / "done").symlink_to(target)
        version = _file(box)
        assert _mover(box).move(b"a.csv", version, EVENT, b"done").fate is MoveResult.MOVED
        assert (target / "a.csv").read_text() == "x"
        assert (target / "a.csv").stat().st_mtime_ns == version.mtime_ns
        assert [path.name for path in target.iterdir()] == ["a.csv"]
        assert not (box / "a.csv").exists()
    finally:
        subprocess.run(["rm", "-r", str(target)], check=True)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("a.csv.gz", "a~2.csv.gz"),
        ("a.CSV.XZ", "a~2.CSV.XZ"),
        ("a.gz", "a~2.gz"),
        ("a.b.zip", "a.b~2.zip"),
        ("a", "a~2"),
    ],
)
def test_a_file_whose_name_is_taken_keeps_all_its_suffixes(box: Path, name: str, other: str) -> None:
    version = _file(box, name)
    (box / "done").mkdir()
    (box / "done" / name).write_text("somebody else's")
    assert _mover(box).move(name.encode(), version, EVENT, b"done").target == f"done/{other}".encode()


def test_a_marker_that_was_set_again_is_not_taken_away(box: Path) -> None:
    version = _file(box, "a.csv.done")
    _mover(box).drop_marker(b"a.csv.done", str(version._replace(mtime_ns=1)))
    assert (box / "a.csv.done").exists()
    _mover(box).drop_marker(b"a.csv.done", str(version))
    assert not (box / "a.csv.done").exists()


@pytest.mark.parametrize("name", [b"a" * 255, "é".encode() * 127, b"\xff" * 255])
def test_a_long_name_is_cut_to_make_room_and_stays_a_name(name: bytes) -> None:
    fitted = fit(name, SIDECAR)
    assert len(fitted) <= 255
    assert fitted.endswith(SIDECAR)
    assert name.startswith(fitted.removesuffix(SIDECAR))
    if name.startswith("é".encode()):
        fitted.decode()


def test_sidecars_are_json(box: Path) -> None:
    version = _file(box)
    _mover(box).move(b"a.csv", version, EVENT, b"failed", json.dumps({"event_id": EVENT}).encode())
    assert json.loads((box / "failed" / "a.csv.error.json").read_text()) == {"event_id": EVENT}
