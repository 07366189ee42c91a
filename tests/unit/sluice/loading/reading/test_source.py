"""What comes out of a dropped file: unpacked, an archive's files, and never more than the budget."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading.errors import RefusedFile
from sluice.loading.reading.source import members

CONTENT = b"id,name\n" + b"".join(b"%d,name of %d\n" % (number, number) for number in range(20_000))


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def zipped(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstd,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def contents(path: Path, budget: Budget | None = None) -> dict[str, bytes]:
    found = {}
    with path.open("rb") as file:
        for member in members(file, str(path), budget or Budget()):
            with member.open() as stream:
                found[member.name] = stream.read()
    return found


def refusal(path: Path, budget: Budget | None = None) -> str:
    with pytest.raises((RefusedFile, OverBudget)) as caught:
        contents(path, budget)
    assert path.name in str(caught.value)
    return str(caught.value)


def written(directory: Path, name: str, content: bytes) -> Path:
    path = directory / name
    path.write_bytes(content)
    return path


def test_a_plain_file_is_itself(tmp_path: Path) -> None:
    assert contents(written(tmp_path, "x.csv", CONTENT)) == {"x.csv": CONTENT}


"""Arrow writes zstd without a checksum: with a bit flipped it can be another valid file."""


@pytest.mark.parametrize("ending", [*PACK, ".zip"])
def test_a_name_that_promises_another_packing_is_refused(tmp_path: Path, ending: str) -> None:
    other = gzip.compress(b"a") if ending != ".gz" else bz2.compress(b"a")
    assert f"is {'gzip' if ending != '.gz' else 'bzip2'}" in refusal(written(tmp_path, "x.csv" + ending, other))
    assert "is not packed" in refusal(written(tmp_path, "y.csv" + ending, b"a,b\n1,2\n"))
    assert "is empty" in refusal(written(tmp_path, "z.csv" + ending, b""))


def test_an_archive_has_its_files_as_members_without_what_systems_add(tmp_path: Path) -> None:
    archive = zipped(
        ("a.csv", b"id\n1\n"),
        ("more/B.CSV", b"id\n2\n"),
        ("more/", b""),
        ("__MACOSX/._a.csv", b"\0"),
        ("more/.DS_Store", b"\0"),
        ("._x.csv", b"\0"),
        ("Thumbs.db", b"\0"),
    )
    assert contents(written(tmp_path, "x.zip", archive)) == {"a.csv": b"id\n1\n", "more/B.CSV": b"id\n2\n"}


def test_files_of_an_archive_can_be_read_side_by_side_and_again(tmp_path: Path) -> None:
    path = written(tmp_path, "x.zip", zipped(("a.csv", CONTENT), ("b.csv", CONTENT[::-1])))
    with path.open("rb") as file:
        one, other = members(file, path.name, Budget())
        with one.open() as first, other.open() as second, one.open() as again:
            pieces = [(first.read(7), second.read(9), again.read(11)) for _ in range(100)]
    assert b"".join(piece[0] for piece in pieces) == CONTENT[:700]
    assert b"".join(piece[1] for piece in pieces) == CONTENT[::-1][:900]
    assert b"".join(piece[2] for piece in pieces) == CONTENT[:1100]


def encrypted() -> bytes:
    archive = bytearray(zipped(("a.csv", b"id\n1\n")))
    archive[6] |= 1
    archive[archive.index(b"PK\x01\x02") + 8] |= 1
    return bytes(archive)


def twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate"):
        return zipped(("a.csv", b"1"), ("a.csv", b"2"))


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (lambda: zipped(("a.csv", CONTENT))[:-30], "is no complete ZIP file"),
        (zipped, "holds no file"),
        (lambda: zipped(("b.zip", zipped(("a.csv", b"1")))), "x.zip/b.zip is packed once more"),
        (lambda: zipped(("b.csv.gz", gzip.compress(b"1"))), "x.zip/b.csv.gz is packed once more"),
        (encrypted, "x.zip/a.csv is encrypted"),
        (twice, "x.zip/a.csv is there twice"),
        (lambda: zipped(("a.csv", CONTENT), method=zipfile.ZIP_LZMA), "packed with method 14"),
        (lambda: zipped(("a.csv", CONTENT), method=zipfile.ZIP_BZIP2), "packed with method 12"),
    ],
)
def test_an_archive_that_cannot_be_read_whole_is_refused(
    tmp_path: Path, archive: Callable[[], bytes], said: str
) -> None:
    assert said in refusal(written(tmp_path, "x.zip", archive()))


def test_a_damaged_file_in_an_archive_is_refused(tmp_path: Path) -> None:
    archive = bytearray(zipped(("a.csv", CONTENT)))
    archive[1000] ^= 0x10
    assert "x.zip/a.csv is no complete ZIP file" in refusal(written(tmp_path, "x.zip", bytes(archive)))


def test_the_budget_of_an_archive_is_that_of_all_its_files(tmp_path: Path) -> None:
    archive = written(tmp_path, "x.zip", zipped(*((f"{number}.csv", bytes(100_000)) for number in range(100))))
    with archive.open("rb") as file, pytest.raises(OverBudget, match="unpacked_bytes"):
        next(members(file, "x.zip", Budget(expansion_ratio=10**6, unpacked_bytes=9_999_999)))
    assert "members = 99" in refusal(archive, Budget(members=99))
    assert len(contents(archive, Budget(members=100, expansion_ratio=10**6))) == 100


def test_the_directory_of_an_archive_is_not_read_when_it_is_too_large(tmp_path: Path) -> None:
    directory = b"PK\x01\x02" + bytes(42)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, len(directory) * 50_000, 0, 0)
    path = written(tmp_path, "x.zip", b"PK\x03\x04" + directory * 50_000 + end)
    assert "members" in refusal(path)


@pytest.mark.parametrize("ending", ["", *PACK])
def test_a_seekable_copy_and_the_share_that_was_read(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path, "x.csv" + ending, PACK.get(ending, bytes)(CONTENT))
    with path.open("rb") as file:
        (member,) = members(file, path.name, Budget())
        assert member.share_read == 0
        with member.open_seekable() as stream:
            stream.seek(-5, io.SEEK_END)
            assert stream.read() == CONTENT[-5:]
            stream.seek(0)
            assert stream.read() == CONTENT
        assert member.share_read == 1


def test_no_changed_byte_of_an_archive_is_told_in_other_words_than_a_refusal(tmp_path: Path) -> None:
    whole = zipped(("a.csv", b"id\n1\n"), ("b.csv", b"id\n2\n"))
    for place in range(len(whole)):
        for bit in (1, 2, 0x80):
            changed = whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :]
            with contextlib.suppress(RefusedFile, OverBudget):
                contents(written(tmp_path, "x.zip", changed))
