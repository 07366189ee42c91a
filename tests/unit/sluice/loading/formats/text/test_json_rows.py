"""JSON and JSON Lines: numbers stay numbers, no key is lost or swapped, and what is wrong is told by its line."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.loading.formats.columnar.nested import json_text
from tests.unit.sluice.loading.readings import refusal, rows, seen, table, written


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.NDJSON", "x.Json"])
def test_an_object_is_a_row_and_a_key_a_column(tmp_path: Path, name: str) -> None:
    content = '{"id": 1, "name": "Ann"}\n{"name": "Bob", "note": null}\n'
    assert rows(written(tmp_path, name, content)) == [
        {"id": 1, "name": "Ann", "note": None},
        {"id": None, "name": "Bob", "note": None},
    ]


def test_fractions_in_objects_and_lists_stay_the_numbers_that_they_are(tmp_path: Path) -> None:
    content = '[{"p": {"price": 1.50, "qty": 2, "vat": 0.19, "tiny": 1e-30}, "l": [1.25, 3, "4.5", true, null]}]'
    assert rows(written(tmp_path, "x.json", content)) == [
        {
            "p": '{"price": 1.50, "qty": 2, "vat": 0.19, "tiny": 1E-30}',
            "l": '[1.25, 3, "4.5", true, null]',
        }
    ]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(JSON)
def test_what_is_nested_comes_back_as_it_was_written(value: Any) -> None:
    assert json.loads(json_text(value), parse_float=Decimal) == value


@pytest.mark.parametrize(
    ("values", "type_", "read"),
    [
        ("1, 2", pa.int64(), [1, 2]),
        ("1, 9007199254740993", pa.int64(), [1, 9007199254740993]),
        ("1, 2.5", pa.float64(), [1.0, 2.5]),
        ("1.10", pa.float64(), [1.1]),
        ("0.30000000000000004", pa.float64(), [0.30000000000000004]),
        ("9007199254740993, 2.5", pa.string(), ["9007199254740993", "2.5"]),
        ("12345678901234567.89, 1", pa.string(), ["12345678901234567.89", "1"]),
        ("18446744073709551616", pa.string(), ["18446744073709551616"]),
        ("1.5e999", pa.string(), ["1.5E+999"]),
        ("true, false", pa.bool_(), [True, False]),
        ("true, 1", pa.string(), ["true", "1"]),
        ('"007", 7', pa.string(), ["007", "7"]),
        ('"1", "2"', pa.string(), ["1", "2"]),
        ("null, null", pa.string(), [None, None]),
        ("null, 1", pa.int64(), [None, 1]),
        ('"", "a\\u0000b"', pa.string(), ["", "a\0b"]),
        ('"\\ud83d\\ude00"', pa.string(), ["😀"]),
    ],
)
def test_a_column_has_the_type_that_gives_all_its_values_back(
    tmp_path: Path, values: str, type_: pa.DataType, read: list[Any]
) -> None:
    content = "".join(f'{{"v": {value}}}\n' for value in values.split(", "))
    found = table(written(tmp_path, "x.jsonl", content))
    assert found.schema.field("v").type == type_
    assert found.column("v").to_pylist() == read


def test_a_column_that_the_contract_calls_text_keeps_the_digits(tmp_path: Path) -> None:
    contract = {"schema": {"fields": [{"name": "release", "type": "string"}]}}
    path = written(tmp_path, "x.json", '[{"release": 3.9}, {"release": 3.10}]')
    assert rows(path, contract) == [{"release": "3.9"}, {"release": "3.10"}]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"v":"first","v":"second"}', "line 1"),
        ('{"a":1}\n{"o":{"v":1,"v":1}}', "line 2"),
        ('{"a":1}\n{"l":[{"v":1,"v":2}]}', "line 2"),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    message = refusal(written(tmp_path, name, content))
    assert "'v' stands twice" in message
    assert said in message


@pytest.mark.parametrize("keys", [("Id", "id"), ("id", "ID"), ("id", " id "), ("café", "cafe\u0301"), ("ﬁ", "fi")])
@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_keys_that_a_database_takes_for_one_are_refused(tmp_path: Path, name: str, keys: tuple[str, str]) -> None:
    content = "\n".join(json.dumps({key: 1}) for key in keys)
    assert "line 2: the key" in refusal(written(tmp_path, name, content))
    assert "only in letter case" in refusal(written(tmp_path, name, json.dumps(dict.fromkeys(keys, 1))))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", '[\n{"a": 1},\n{"a": tru}\n]', "line 3, character 7"),
        ("x.json", '[{"a": 1}, {"a": 2}', "ends before a ']'"),
        ("x.json", '[{"a": 1} {"a": 2}]', "'{' stands where ']' is expected"),
        ("x.json", '[{"a": 1},]', "not JSON"),
        ("x.json", '[{"a": 1}]\n{"a": 2}', "'{' follows where the document has ended"),
        ("x.json", '{"a": 1}, {"a": 2}', "not JSON"),
        ("x.json", '{"a": NaN}', "NaN is not JSON"),
        ("x.json", "[1, 2]", "line 1: a row must be a JSON object"),
        ("x.json", '[{"a": 1}, [2]]', "this is a list"),
        ("x.json", '"text"', "this is a text"),
        ("x.json", '{"a": "\\ud800"}', "half of a surrogate pair"),
        ("x.json", '{"a": {"b": "\\ud800"}}', "half of a surrogate pair"),
        ("x.json", "[" * 100_000, "nests its values too deeply"),
        ("x.json", '{"a": ' + "[" * 100_000, "nests its values too deeply"),
        ("x.json", '[{"a": ' + "9" * 100_000 + "}]", "not JSON"),
        ("x.jsonl", '{"a": 1}\n{"a": \n', "line 2, character 6"),
        ("x.jsonl", '[\n{"a": 1}\n]', "a document of several lines has a name that ends in .json"),
        ("x.jsonl", '{"a": 1}{"a": 2}', "line 1, character 9: not JSON"),
        ("x.jsonl", '{"a": Infinity}', "Infinity is not JSON"),
        ("x.jsonl", '{"a": 1}\n7\n', "line 2: a row must be a JSON object"),
        ("x.jsonl", '{"a": 1}\n\n{"a": "\\udc00"}', "line 3: the column 'a'"),
        ("x.jsonl", '{"a": ' + "[" * 100_000, "nests its values too deeply"),
        ("x.jsonl", b'{"a": 1}\n{"a": "\xff"}', "line 2: byte 0xFF is not UTF-8"),
        ("x.json", b'[{"a": 1},\n{"a": "\xe9"}]', "line 2: byte 0xE9 is not UTF-8"),
        ("x.json", b"\x1f\x8bwhatever", "packed with gzip, whatever its name says"),
        ("x.jsonl", b"PAR1whatever", "a Parquet file"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    assert said in refusal(written(tmp_path, name, content))


def test_a_value_may_begin_before_and_end_behind_any_number_of_pieces(tmp_path: Path) -> None:
    content = [{"n": number, "s": "ä" * (number * 37 % 150_000), "l": [1.5] * (number % 7)} for number in range(60)]
    path = written(tmp_path, "x.json", json.dumps(content, indent=1, ensure_ascii=False))
    found, lines, _ = seen(path)
    assert found.column("n").to_pylist() == list(range(60))
    assert [len(text) for text in found.column("s").to_pylist()] == [number * 37 % 150_000 for number in range(60)]
    text = path.read_text().splitlines()
    assert all(text[line - 1] == " {" for line in lines)


def test_rows_have_the_line_that_they_begin_at(tmp_path: Path) -> None:
    assert seen(written(tmp_path, "x.json", '\n[\n  {"a":\n 1},\n\n  {"a": 2}]'))[1] == [3, 6]
    assert seen(written(tmp_path, "x.jsonl", '{"a": 1}\n\n\n{"a": 2}'))[1] == [1, 4]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    assert rows(written(tmp_path, name, '{"é": "ü"}\n'.encode(encoding))) == [{"é": "ü"}]


def test_the_contract_names_the_encoding_and_the_property(tmp_path: Path) -> None:
    content = '{"meta": {"n": [1]}, "rows": [{"é": 1}, {"é": 2}], "more": 0}'.encode("cp1252")
    contract = {"encoding": "windows-1252", "dialect": {"property": "rows"}}
    assert rows(written(tmp_path, "x.json", content), contract) == [{"é": 1}, {"é": 2}]
    assert "no key 'data'" in refusal(tmp_path / "x.json", {**contract, "dialect": {"property": "data"}})


@pytest.mark.parametrize(
    ("behind", "said"),
    [
        ("", "it ends before a '}'"),
        (', "n": 2', "it ends before a '}'"),
        ("} x", "'x' follows where the document has ended"),
        (', "rows": [{"a": 2}]}', "the key 'rows' stands twice in one object"),
    ],
)
def test_what_stands_behind_the_property_with_the_rows_is_read_to_the_end(
    tmp_path: Path, behind: str, said: str
) -> None:
    contract = {"dialect": {"property": "rows"}}
    path = written(tmp_path, "x.json", '{"rows": [{"a": 1}], "more": {"rows": [1]}')
    assert "it ends before a '}'" in refusal(path, contract)
    assert said in refusal(written(tmp_path, "x.json", f'{{"rows": [{{"a": 1}}]{behind}'), contract)
    assert rows(written(tmp_path, "x.json", '{"rows": [{"a": 1}], "n": {"rows": 2}}\n'), contract) == [{"a": 1}]


def test_a_key_that_is_no_text_is_refused(tmp_path: Path) -> None:
    assert "a key holds half of a surrogate pair" in refusal(written(tmp_path, "x.json", '[{"\\ud800": 1}]'))


@pytest.mark.parametrize("content", ["", "  \n", "[]", "[ ]\n"])
def test_a_document_without_rows_has_no_columns(tmp_path: Path, content: str) -> None:
    found, _, reading = seen(written(tmp_path, "x.json", content))
    assert (found.num_rows, reading.columns) == (0, [])


def test_limits_of_a_line_of_rows_of_columns_and_of_cells(tmp_path: Path) -> None:
    for name in ("x.json", "x.jsonl"):
        path = written(tmp_path, name, '{"a": 1, "b": 2}\n' * 100)
        assert "rows = 99" in refusal(path, rows=99)
        assert "columns = 1" in refusal(path, columns=1)
        assert "cells = 199" in refusal(path, cells=199)
        assert len(rows(path, rows=100, columns=2, cells=200)) == 100
    long = "x" * 300_000
    assert "line_bytes = 100000" in refusal(written(tmp_path, "y.json", f'[{{"a": "{long}"}}]'), line_bytes=100_000)
    assert "line_bytes = 100000" in refusal(written(tmp_path, "y.jsonl", f'{{"a": "{long}"}}'), line_bytes=100_000)


def test_a_document_that_holds_its_rows_is_one_row_and_says_how_they_become_rows(tmp_path: Path) -> None:
    content = {"type": "FeatureCollection", "features": [{"id": 1}, {"id": 2}], "tags": ["a"], "none": []}
    path = written(tmp_path, "x.json", json.dumps(content))
    found, _, reading = seen(path)
    assert found.num_rows == 1
    (note,) = reading.notes
    assert "its 'features' holds 2 objects" in note
    assert "`dialect: {property: features}`" in note
    assert seen(path, {"dialect": {"property": "features"}})[2].notes == []
    assert rows(path, {"dialect": {"property": "features"}}) == [{"id": 1}, {"id": 2}]
    assert seen(written(tmp_path, "y.json", '[{"a": [{"b": 1}]}]'))[2].notes == []
