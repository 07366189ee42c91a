"""Small files that unfold into more than a machine has end with a sentence, within bounded memory, disk and time."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.sluice.loading.spreadsheets import number, row, text, write_xlsx

MEMORY = 512 * 1024 * 1024
"""Of address space beyond what the libraries take."""

DISK = 1100 * 1024 * 1024
"""Of a temporary file; the budget's ``unpacked_bytes`` is 1 GiB."""

READ = """
import resource, sys
from pathlib import Path
import pyarrow.parquet, pyarrow.compute
from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading.contracts.contract import parse_contract
from sluice.loading.errors import RefusedFile
from sluice.loading.formats import read
from sluice.loading.reading.source import members
path = Path(sys.argv[1])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
contract = parse_contract({"sluice": {"row_tag": "r"}}) if ".xml" in path.name else None
try:
    with path.open("rb") as file:
        for member in members(file, path.name, Budget()):
            reading = read(member, contract)
            print("taken", sum(batch.rows.num_rows for batch in reading.batches()))
except (RefusedFile, OverBudget) as error:
    print(error)
finally:
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print("used at most", peak.split()[1], "KiB", file=sys.stderr)
"""

Bomb = Callable[[Path], None]


def ten_gigabytes(pack: Callable[[bytes], bytes]) -> Bomb:
    """A block of zeros, packed once and repeated: every packing here allows pieces one after another."""

    def bomb(path: Path) -> None:
        path.write_bytes(pack(bytes(50_000_000)) * 200)

    return bomb


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def long_value(before: bytes, after: bytes) -> Bomb:
    """400 MB between two texts."""

    def bomb(path: Path) -> None:
        with path.open("wb") as file:
            file.write(before)
            for _ in range(400):
                file.write(b"x" * 1_000_000)
            file.write(after)

    return bomb


def quotation(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b'a,b\n1,"')
        for _ in range(400):
            file.write((b"text" * 49 + b"\n") * 5000)


def commas(path: Path) -> None:
    with gzip.open(path, "wb", 9) as file:
        for _ in range(60):
            file.write(b"," * 1_000_000)
        file.write(b"\n1\n")


def same_names(path: Path) -> None:
    path.write_text(",".join(["c"] * 50_000) + "\n" + ",".join(["1"] * 50_000) + "\n")


def rows(path: Path) -> None:
    with gzip.open(path, "wb", 9) as file:
        file.write(b"a\n")
        for _ in range(40):
            file.write((b"1" * 99 + b"\n") * 10_000)


def quotations(path: Path) -> None:
    path.write_text("id,note\n" + ('"' + ("x" * 499 + "\n") * 2 + '",') * 20_000)


def laughs(path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "ha"}">' for n in range(10))
    path.write_text(f"<!DOCTYPE a [{entities}]><a><r>&e9;</r></a>")


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def deep_xml(path: Path) -> None:
    path.write_text("<a><r>" + "<b>" * 5_000_000)


def digits(path: Path) -> None:
    path.write_text('[{"a": ' + "9" * 100_000 + "}]")


def keys(path: Path) -> None:
    path.write_text(json.dumps({f"k{number}": 1 for number in range(50_000)}) + "\n")


def other_keys(path: Path) -> None:
    path.write_text("".join(f'{{"k{number}": 1}}\n' for number in range(50_000)))


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def sparse_gzip(path: Path) -> None:
    with path.open("wb") as file:
        file.write(gzip.compress(b'{"a": 1}\n'))
        file.truncate(1 << 40)


def padded_gzip(path: Path) -> None:
    with path.open("wb") as file:
        file.write(gzip.compress(b'{"a": 1}\n'))
        file.truncate(300_000_000)


def repeated(value: str, times: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([value]))


def dictionary(path: Path) -> None:
    pq.write_table(pa.table({"s": repeated("x" * 20_000_000, 200)}), path, compression="zstd")


def small_dictionary(path: Path) -> None:
    pq.write_table(pa.table({"s": repeated("x" * 3_000_000, 2_000)}), path, compression="zstd")


def list_of_one_text(path: Path) -> None:
    texts = repeated("x" * 1_000_000, 5_000)
    table = pa.table({"l": pa.ListArray.from_arrays(pa.array([0, 5_000], pa.int32()), texts)})
    pq.write_table(table, path, compression="zstd")


def list_of_numbers(path: Path) -> None:
    numbers = pa.array([0] * 10_000_000, pa.int64())
    table = pa.table({"l": pa.ListArray.from_arrays(pa.array([0, 10_000_000], pa.int32()), numbers)})
    pq.write_table(table, path, compression="zstd")


def constant_columns(path: Path) -> None:
    pq.write_table(pa.table({"n": repeated("12345678", 1_000_000)}), path, compression="zstd")


def arrow(column: Callable[[], pa.Array]) -> Bomb:
    """The column is made for the test alone, and not in each process that collects it."""

    def bomb(path: Path) -> None:
        table = pa.table({"a": column()})
        with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)

    return bomb


def archive_of_zeros(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for place in range(900):
            archive.writestr(f"{place}.jsonl", bytes(10_000_000 if place < 3 else 1000))


def directory(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for place in range(20_000):
            archive.writestr(f"{'x' * 200}{place}.csv", b"")


def far_cell(path: Path) -> None:
    write_xlsx(path, {"S": row(text("a", "A1")) + row(number("1", "XFD1048576"))})


def wide_sheet(path: Path) -> None:
    write_xlsx(
        path, {"S": "".join(row(text("a", f"A{place}"), number("1", f"ZZ{place}")) for place in range(1, 60_000))}
    )


def members_of_nothing(path: Path) -> None:
    path.write_bytes(gzip.compress(b"") * 200_000)


@pytest.mark.parametrize(
    ("name", "bomb", "said"),
    [
        ("zeros.csv.gz", ten_gigabytes(gzip.compress), "more than 262144 characters"),
        ("zeros.csv.xz", ten_gigabytes(lzma.compress), "more than 262144 characters"),
        ("text.csv", long_value(b"a,b\n1,", b"\n"), "line_bytes"),
        ("header.csv", long_value(b"", b",b\n1,2\n"), "more than 262144 characters"),
        ("quotation.csv", quotation, "line_bytes"),
        ("quotations.csv", quotations, "line_bytes"),
        ("commas.csv.gz", commas, "more than 262144 characters"),
        ("same.csv", same_names, "columns"),
        ("rows.csv.gz", rows, "expansion_ratio"),
        ("sparse.csv", sparse, "unpacked_bytes"),
        ("zeros.jsonl.gz", ten_gigabytes(gzip.compress), "line_bytes"),
        ("zeros.xml.gz", ten_gigabytes(gzip.compress), "not XML"),
        ("zeros.parquet.gz", ten_gigabytes(gzip.compress), "unpacked_bytes"),
        ("zeros.arrow.gz", ten_gigabytes(gzip.compress), "no Arrow file"),
        ("zeros.parquet.zst", ten_gigabytes(zstd), "expansion_ratio"),
        ("zeros.parquet.bz2", ten_gigabytes(bz2.compress), "expansion_ratio"),
        ("zeros.parquet.xz", ten_gigabytes(lzma.compress), "expansion_ratio"),
        ("zeros.zip", archive_of_zeros, "expansion_ratio"),
        ("directory.zip", directory, "members"),
        ("line.jsonl", long_value(b'{"a": "', b'"}\n'), "line_bytes"),
        ("line.json", long_value(b'{"a": "', b'"}\n'), "line_bytes"),
        ("line.xml", long_value(b"<a><r><b>", b"</b></r></a>"), "line_bytes"),
        ("attribute.xml", long_value(b'<a><r b="', b'"/></a>'), "line_bytes"),
        ("laughs.xml", laughs, "document type"),
        ("deep.xml", deep_xml, "nests its elements too deeply"),
        ("deep.json", deep, "nests its values too deeply"),
        ("deep.jsonl", deep, "nests its values too deeply"),
        ("digits.json", digits, "not JSON"),
        ("keys.jsonl", keys, "columns"),
        ("other_keys.jsonl", other_keys, "columns"),
        ("sparse.jsonl", sparse, "unpacked_bytes"),
        ("sparse.parquet", sparse, "unpacked_bytes"),
        ("sparse.arrow", sparse, "unpacked_bytes"),
        ("sparse.xls", sparse, "unpacked_bytes"),
        ("sparse.jsonl.gz", sparse_gzip, "unpacked_bytes"),
        ("padded.jsonl.gz", padded_gzip, "taken 1"),
        ("members.jsonl.gz", members_of_nothing, "taken 0"),
        ("dict.parquet", dictionary, "expansion_ratio"),
        ("small_dict.parquet", small_dictionary, "expansion_ratio"),
        ("list.parquet", list_of_one_text, "line_bytes"),
        ("numbers.parquet", list_of_numbers, "line_bytes"),
        ("constant.parquet", constant_columns, "expansion_ratio"),
        ("batch.arrow", arrow(lambda: pa.array([0] * 40_000_000, pa.int64())), "block_bytes"),
        ("dict.arrow", arrow(lambda: repeated("x" * 3_000_000, 2_000)), "expansion_ratio"),
        ("cell.xlsx", far_cell, "block_bytes"),
        ("wide.xlsx", wide_sheet, "block_bytes"),
    ],
)  # fmt: skip
def test_a_file_that_unfolds_is_refused_within_bounded_memory_and_disk(
    tmp_path: Path, checkout: Path, name: str, bomb: Bomb, said: str
) -> None:
    path = tmp_path / name
    bomb(path)
    answer = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(MEMORY), str(DISK)],
        cwd=checkout,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert said in answer.stdout, (answer.stdout[-500:], answer.stderr[-2000:])
    assert name.partition(".")[0] in answer.stdout or "taken" in answer.stdout
    assert not [one for one in tmp_path.iterdir() if one != path]
