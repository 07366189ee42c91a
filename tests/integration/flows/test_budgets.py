"""Small files that unfold into more than a machine has end with a sentence, within bounded memory and time."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.ingest_file import BadFile, inspect_file, load_rows
from sluice.budgets import Budget

MEMORY = 1536 * 1024 * 1024
"""Of address space, libraries included, on a machine with 2 GB."""

READ = """
import resource, sys
from pathlib import Path
import pyarrow.parquet
from flows.ingest_file import BadFile, inspect_file
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
try:
    print("taken", inspect_file.fn(Path(sys.argv[1])).rows)
except BadFile as error:
    print(error)
"""


def commas(path: Path) -> None:
    with gzip.open(path, "wb", 9) as file:
        for _ in range(60):
            file.write(b"," * 1_000_000)
        file.write(b"\n1\n")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def sparse_gzip(path: Path) -> None:
    with path.open("wb") as file:
        file.write(gzip.compress(b"a\n1\n"))
        file.truncate(1 << 40)


def same_names(path: Path) -> None:
    path.write_text(",".join(["c"] * 50_000) + "\n" + ",".join(["1"] * 50_000) + "\n")


def rows(path: Path) -> None:
    with gzip.open(path, "wb", 9) as file:
        file.write(b"a\n")
        for _ in range(40):
            file.write((b"1" * 99 + b"\n") * 10_000)


def members(path: Path) -> None:
    path.write_bytes(gzip.compress(b"") * 200_000)


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


def struct_of_texts(path: Path) -> None:
    texts = repeated("x" * 1_000_000, 3_000)
    pq.write_table(pa.table({"s": pa.StructArray.from_arrays([texts], ["t"])}), path, compression="zstd")


def list_of_numbers(path: Path) -> None:
    numbers = pa.array([0] * 10_000_000, pa.int64())
    table = pa.table({"l": pa.ListArray.from_arrays(pa.array([0, 10_000_000], pa.int32()), numbers)})
    pq.write_table(table, path, compression="zstd")


def constant_columns(path: Path) -> None:
    pq.write_table(pa.table({"n": repeated("12345678", 1_000_000)}), path, compression="zstd")


def parquet_in_gzip(path: Path) -> None:
    with gzip.open(path, "wb", 9) as file:
        for _ in range(200):
            file.write(bytes(1_000_000))


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def digits(path: Path) -> None:
    path.write_text('[{"a": ' + "9" * 100_000 + "}]")


def document(path: Path) -> None:
    with gzip.open(path, "wb", 1) as file:
        file.write(b"[" + b'{"a":1},' * 8_000_000 + b"{}]")


def keys(path: Path) -> None:
    path.write_text(json.dumps({f"k{number}": 1 for number in range(50_000)}) + "\n")


def other_keys(path: Path) -> None:
    path.write_text("".join(f'{{"k{number}": 1}}\n' for number in range(50_000)))


def line(path: Path) -> None:
    path.write_text('{"a": "' + "x" * 17 * 1024 * 1024 + '"}\n')


def quotation(path: Path) -> None:
    path.write_text('a,b\n1,"' + ("text" * 50 + "\n") * 100_000)


def quotations(path: Path) -> None:
    path.write_text("a,b\n" + ('"' + ("x" * 499 + "\n") * 2 + '",') * 20_000)


@pytest.mark.parametrize(
    ("name", "bomb", "said"),
    [
        ("commas.csv.gz", commas, "expansion_ratio"),
        ("sparse.csv", sparse, "unpacked_bytes"),
        ("sparse.parquet", sparse, "unpacked_bytes"),
        ("sparse.csv.gz", sparse_gzip, "unpacked_bytes"),
        ("same.csv", same_names, "columns"),
        ("rows.csv.gz", rows, "expansion_ratio"),
        ("members.csv.gz", members, "no line with the names"),
        ("dict.parquet", dictionary, "expansion_ratio"),
        ("small_dict.parquet", small_dictionary, "expansion_ratio"),
        ("list.parquet", list_of_one_text, "line_bytes"),
        ("struct.parquet", struct_of_texts, "expansion_ratio"),
        ("numbers.parquet", list_of_numbers, "line_bytes"),
        ("constant.parquet", constant_columns, "expansion_ratio"),
        ("zeros.parquet.gz", parquet_in_gzip, "expansion_ratio"),
        ("deep.json", deep, "nests its values too deeply"),
        ("deep.jsonl", deep, "nests its values too deeply"),
        ("digits.json", digits, "not JSON"),
        ("document.json.gz", document, "document_bytes"),
        ("keys.jsonl", keys, "columns"),
        ("other_keys.jsonl", other_keys, "columns"),
        ("line.jsonl", line, "line_bytes"),
        ("quotation.csv", quotation, "line_bytes"),
        ("quotations.csv", quotations, "line_bytes"),
    ],
)
def test_a_file_that_unfolds_is_refused_within_the_memory_of_a_small_machine(
    tmp_path: Path, checkout: Path, name: str, bomb: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / name
    bomb(path)
    answer = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(MEMORY // 2)],
        cwd=checkout,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert said in answer.stdout, (answer.stdout[-500:], answer.stderr[-2000:])
    assert name in answer.stdout


def refusal(path: Path, **limits: int) -> str:
    with pytest.raises(BadFile) as caught:
        inspect_file.fn(path, Budget(**limits))
    return str(caught.value)


@pytest.mark.parametrize(
    ("limit", "value"),
    [("rows", 99), ("columns", 1), ("cells", 199), ("line_bytes", 5), ("unpacked_bytes", 100)],
)
def test_each_limit_says_its_name_its_value_and_how_to_raise_it(tmp_path: Path, limit: str, value: int) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("one,two\n" + "1,2\n" * 100)
    message = refusal(path, **{limit: value})
    assert "orders.csv" in message
    assert f"the budget {limit} = {value} is reached" in message
    assert f'{{"{limit}": {2 * value}}}' in message
    assert "parameter `budget`" in message
    assert inspect_file.fn(path).rows == 100


@pytest.mark.parametrize("limit", ["rows", "columns", "cells", "line_bytes", "unpacked_bytes"])
def test_each_limit_holds_for_parquet_too(tmp_path: Path, limit: str) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": ["x" * 50] * 10, "b": range(10)}), path)
    assert f"the budget {limit} = 1 is reached" in refusal(path, **{limit: 1})


def test_a_document_that_is_read_as_a_whole_has_a_limit_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"a": 1}] * 100))
    assert "JSON Lines" in refusal(path, document_bytes=100)


def test_small_files_may_compress_as_they_like(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"a\n" + b"1" * 400_000 + b"\n", 9))
    assert inspect_file.fn(path).rows == 1


def test_large_values_go_to_the_database_a_few_at_a_time(tmp_path: Path) -> None:
    path, database = tmp_path / "x.parquet", tmp_path / "data.db"
    pq.write_table(
        pa.table({"s": [f"{number:02}" + "y" * 5_000_000 for number in range(12)]}), path, compression="none"
    )
    roomy = Budget(expansion_ratio=1000)
    load_rows.fn(path, inspect_file.fn(path, roomy), "t", f"sqlite:///{database}", budget=roomy)
    import sqlite3

    connection = sqlite3.connect(database)
    assert connection.execute("SELECT count(*), min(length(s)), max(substr(s, 1, 2)) FROM t").fetchall() == [
        (12, 5_000_002, "11")
    ]
    connection.close()


def test_the_budget_is_checked_itself() -> None:
    with pytest.raises(ValueError, match="rowz"):
        Budget(rowz=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Budget(rows=0)
