"""What `ingest-file` makes of the bytes of a file and of the values in it."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.ingest_file import (
    BadFile,
    column_names,
    inspect_file,
    kind_of_text,
    kind_of_value,
    open_rows,
    table_name,
    wider,
)


def written(directory: Path, name: str, content: bytes | str) -> Path:
    path = directory / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    with open_rows(path) as found:
        return [dict(row) for _, row in found]


def refusal(path: Path) -> str:
    with pytest.raises(BadFile) as error:
        inspect_file.fn(path)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0", "integer"),
        ("-17", "integer"),
        ("9007199254740993", "long"),
        ("9223372036854775807", "long"),
        ("9223372036854775808", "text"),
        ("007", "text"),
        ("-0", "text"),
        ("+1", "text"),
        ("1_000", "text"),
        ("٣", "text"),
        ("1.5", "real"),
        ("0.30000000000000004", "real"),
        ("0.1000000000000000055511151231257827", "text"),
        ("1.5e300", "real"),
        ("1.5e999", "text"),
        ("1E5", "text"),
        (".5", "text"),
        ("nan", "text"),
        ("2026-03-01", "text"),
        ("true", "text"),
        (" 1", "text"),
    ],
)
def test_a_csv_field_is_a_number_only_if_the_number_gives_its_value_back(text: str, kind: str) -> None:
    assert kind_of_text(text) == kind


@given(st.text(alphabet="0123456789.-+eE", max_size=24))
def test_no_numeric_text_changes_its_value_by_being_a_number(text: str) -> None:
    match kind_of_text(text):
        case "integer" | "long":
            assert str(int(text)) == text
        case "real":
            assert Decimal(repr(float(text))) == Decimal(text)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5"], "real"),
        (["1", "9007199254740993"], "long"),
        (["9007199254740993", "2.5"], "text"),
        (["1", "x"], "text"),
    ],
)
def test_a_column_gets_the_narrowest_kind_that_holds_all_its_values(values: list[str], kind: str) -> None:
    known = None
    for value in values:
        known = wider(known, kind_of_text(value))
    assert known == kind


@pytest.mark.parametrize(
    ("value", "kind"),
    [(True, "boolean"), (1, "integer"), (2**60, "long"), (2**64, "text"), (Decimal("1.5"), "real"), ("1", "text")],
)
def test_a_json_value_keeps_the_type_it_was_written_with(value: Any, kind: str) -> None:
    assert kind_of_value(value) == kind


def test_column_names_are_kept_apart_where_the_header_repeats_them_or_leaves_them_out() -> None:
    assert column_names(["id", "ID", "", "id", " a\n b ", "id_2"]) == [
        "id",
        "ID_2",
        "column_3",
        "id_3",
        "a b",
        "id_2_2",
    ]


def test_long_column_names_are_cut_and_still_differ() -> None:
    names = column_names(["ü" * 40 + "a", "ü" * 40 + "b"], longest=63)
    assert len(set(names)) == 2
    assert all(len(name.encode()) <= 63 for name in names)


@pytest.mark.parametrize(
    ("file", "table"),
    [
        ("Orders 2026-03.csv.gz", "orders_2026_03"),
        ("weather.csv", "weather"),
        ("订单.json", "订单"),
        ("---.csv", "data"),
        ("sqlite_master.csv", "t_sqlite_master"),
        ("sluice_loads.csv", "t_sluice_loads"),
    ],
)
def test_the_table_is_named_after_the_file(file: str, table: str) -> None:
    assert table_name(Path(file)) == table


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_of_a_csv_file_is_found(tmp_path: Path, delimiter: str) -> None:
    content = delimiter.join(["a", "b", "c"]) + "\n" + delimiter.join(["1,5", '"x;y"', "z"]).replace("1,5", '"1,5"')
    assert rows(written(tmp_path, "x.csv", content)) == [{"a": "1,5", "b": "x;y", "c": "z"}]


def test_quotes_line_breaks_and_blank_lines_in_csv_are_read_as_spreadsheets_write_them(tmp_path: Path) -> None:
    path = written(tmp_path, "x.csv", '\ufeffname,note\r\n"Smith, J","two\nlines"\r\n\r\nLee,""\r\n')
    with open_rows(path) as found:
        assert list(found) == [
            (2, {"name": "Smith, J", "note": "two\nlines"}),
            (5, {"name": "Lee", "note": None}),
        ]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    expected = [{"city": "Oslo", "n": 1}, {"city": "Rome", "n": None}]
    as_json = json.dumps(expected)
    pq.write_table(pa.Table.from_pylist(expected), tmp_path / "x.parquet")
    assert rows(tmp_path / "x.parquet") == expected
    assert rows(written(tmp_path, "x.json", as_json)) == expected
    assert rows(written(tmp_path, "x.json.gz", gzip.compress(as_json.encode()))) == expected
    assert rows(written(tmp_path, "x.jsonl", "\n\n".join(json.dumps(row) for row in expected))) == expected
    assert rows(written(tmp_path, "X.CSV.GZ", gzip.compress(b"city,n\nOslo,1\nRome,\n"))) == [
        {"city": "Oslo", "n": "1"},
        {"city": "Rome", "n": None},
    ]


def test_columns_that_only_some_json_objects_have_are_columns(tmp_path: Path) -> None:
    inspected = inspect_file.fn(written(tmp_path, "x.json", '[{"a": 1}, {"b": "x", "a": null}]'))
    assert (inspected.rows, inspected.kinds) == (2, {"a": "integer", "b": "text"})


def test_times_and_decimals_of_parquet_keep_every_digit(tmp_path: Path) -> None:
    table = pa.table(
        {
            "at": pa.array([1_700_000_000_000_000_001], pa.timestamp("ns", tz="UTC")),
            "day": pa.array([1], pa.date32()),
            "price": pa.array([Decimal("12345678901234567890.12")], pa.decimal128(38, 2)),
            "many": pa.array([["a", "b"]]),
            "blob": pa.array([b"\x00\xff"]),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    (row,) = rows(tmp_path / "x.parquet")
    assert row["at"] == "2023-11-14 22:13:20.000000001Z"
    assert row["day"] == "1970-01-02"
    assert inspect_file.fn(tmp_path / "x.parquet").kinds == {
        "at": "text",
        "day": "text",
        "price": "text",
        "many": "text",
        "blob": "bytes",
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "x.csv has no line with the names of the columns"),
        ("x.csv", "a,b\n1,2\n3\n", "x.csv, line 3: 1 field where the header names 2: column 'b' has none"),
        ("x.csv", "a,b\n1,2,3\n", "x.csv, line 2: 3 fields where the header names 2: a field with the delimiter"),
        ("x.csv", 'a,b\n1,"2\n', "x.csv, line 2: unexpected end of data; is a quotation mark missing?"),
        ("x.csv", b"a\nok\ncaf\xe9\n", "x.csv, line 3: byte 0xE9 is not UTF-8: save the file as UTF-8"),
        ("x.csv", "a\n1\n".encode("utf-16"), "x.csv is UTF-16: save the file as UTF-8"),
        ("x.csv.gz", b"a\n1\n", "x.csv.gz is not a complete gzip file"),
        ("x.csv.gz", gzip.compress(b"a\n" + b"1\n" * 9999, mtime=0)[:-9], "x.csv.gz is not a complete gzip file"),
        ("x.json", "", "x.json, line 1, character 1: not JSON"),
        ("x.json", '[{"a": 1},\n{"a": }]', "x.json, line 2, character 7: not JSON"),
        ("x.json", '[{"a": NaN}]', "x.json, line 1, character 8: not JSON (NaN is not a number)"),
        ("x.json", "[1]", "x.json, element 1: a row must be a JSON object"),
        ("x.json", "[" * 100_000, "x.json nests its values too deeply"),
        ("x.jsonl", '{"a": 1}\n{"a"\n', "x.jsonl, line 2, character"),
        ("x.parquet", b"PAR1 and then nothing", "x.parquet is not a readable Parquet file"),
        ("x.xlsx", b"PK", "x.xlsx is of no known kind: its name must end in .csv"),
    ],
)
def test_a_broken_file_is_refused_with_the_place_and_the_reason(
    tmp_path: Path, name: str, content: bytes | str, message: str
) -> None:
    assert refusal(written(tmp_path, name, content)).startswith(message)


def test_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    assert "cannot be read: No such file or directory" in refusal(tmp_path / "gone.csv")


def test_a_name_that_is_not_utf_8_can_be_shown(tmp_path: Path) -> None:
    path = tmp_path / b"caf\xe9.csv".decode(errors="surrogateescape")
    path.write_text("a,b\n1\n")
    message = refusal(path)
    assert message.encode()
    assert message.startswith("caf\ufffd.csv, line 2")
