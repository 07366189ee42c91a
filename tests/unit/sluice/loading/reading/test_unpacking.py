"""What is packed comes out whole, within its budget, or is refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
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


@pytest.mark.parametrize("ending", [*PACK, ".GZ", ".Zst", ".BZ2", ".XZ"])
def test_a_packed_file_has_one_member_named_without_the_ending(tmp_path: Path, ending: str) -> None:
    packed = PACK[ending.lower()](CONTENT)
    assert contents(written(tmp_path, "x.CSV" + ending, packed)) == {"x.CSV": CONTENT}


@pytest.mark.parametrize("ending", PACK)
def test_packed_pieces_one_after_another_are_one_content(tmp_path: Path, ending: str) -> None:
    pack = PACK[ending]
    pieces = pack(CONTENT[:1000]) + pack(b"") + pack(CONTENT[1000:])
    assert contents(written(tmp_path, "x.csv" + ending, pieces)) == {"x.csv": CONTENT}


def test_zeros_behind_an_xz_stream_are_padding(tmp_path: Path) -> None:
    padded = lzma.compress(CONTENT) + bytes(600_000)
    assert contents(written(tmp_path, "x.csv.xz", padded)) == {"x.csv": CONTENT}


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda packed: packed[:-3],
    "flipped": lambda packed: (
        packed[: len(packed) // 2] + bytes([packed[len(packed) // 2] ^ 0x10]) + packed[len(packed) // 2 + 1 :]
    ),
    "followed": lambda packed: packed + b"something else",
    "only begun": lambda packed: packed[:8],
}

CHECKED = [(ending, damage) for ending in PACK for damage in DAMAGE if (ending, damage) != (".zst", "flipped")]


@pytest.mark.parametrize(("ending", "damage"), CHECKED)
def test_a_damaged_packing_is_refused_however_much_of_it_could_be_read(
    tmp_path: Path, ending: str, damage: str
) -> None:
    damaged = DAMAGE[damage](PACK[ending](CONTENT))
    assert "is no complete" in refusal(written(tmp_path, "x.csv" + ending, damaged))


@pytest.mark.parametrize("ending", PACK)
def test_ten_times_the_budget_of_zeros_is_refused_before_it_comes_out(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path, "x.csv" + ending, PACK[ending](bytes(20_000_000)))
    assert "expansion_ratio" in refusal(path)
    assert "unpacked_bytes" in refusal(path, Budget(expansion_ratio=10**9, unpacked_bytes=5_000_000))


def test_an_xz_file_cannot_ask_for_more_memory_than_the_highest_preset_needs(tmp_path: Path) -> None:
    packed = bytearray(lzma.compress(CONTENT))
    packed[16] = 40  # the size of the dictionary in the first block's header: 4 GiB
    packed[20:24] = zlib.crc32(packed[12:20]).to_bytes(4, "little")
    assert "Memory usage limit exceeded" in refusal(written(tmp_path, "x.csv.xz", bytes(packed)))
    assert contents(written(tmp_path, "y.csv.xz", lzma.compress(CONTENT, preset=9 | lzma.PRESET_EXTREME)))
