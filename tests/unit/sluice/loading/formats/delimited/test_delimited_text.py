"""How rows are read: nothing is guessed, changed or lost."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading.errors import AmbiguousFile
from sluice.loading.formats.delimited import blocks as blocks_module
from tests.unit.sluice.loading.formats.delimited.reading import bad, reading, refusal, table


def test_quotes_line_breaks_and_blank_lines_are_read_as_spreadsheets_write_them(written: Any) -> None:
    path = written('\ufeffname,note\r\n"Smith, J","two\r\nlines"\r\n\r\nLee,""\r\n')
    (batch,) = reading(path).batches()
    assert batch.rows.to_pylist() == [{"name": "Smith, J", "note": "two\r\nlines"}, {"name": "Lee", "note": None}]
    assert batch.lines is not None
    assert batch.lines().to_pylist() == [2, 5]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_each_kind_of_line_end_is_read(written: Any, end: str) -> None:
    path = written(end.join(["id,name", "1,Ann", "2,Bob", ""]))
    assert table(path) == (["id", "name"], [("1", "Ann"), ("2", "Bob")])


def test_line_ends_of_several_kinds_are_read(written: Any) -> None:
    path = written("id,name\r1,Ann\n2,Bob\r\n3,Cyd")
    assert table(path)[1] == [("1", "Ann"), ("2", "Bob"), ("3", "Cyd")]
    assert reading(path).evidence["line ends"] == "CRLF, LF, CR"


def test_a_single_carriage_return_in_one_column_is_refused(written: Any) -> None:
    assert "single CR" in refusal(written("note\nab\rcd\n"), kind=AmbiguousFile)
    assert table(written('note\n"ab\rcd"\n'))[1] == [("ab\rcd",)]


def test_a_single_carriage_return_in_a_field_is_a_bad_row(written: Any) -> None:
    assert bad(written("id,note\n1,ab\rcd\n2,x\n")) == [(3, "1 field where the header names 2: column 'note' has none")]


def test_a_blank_line_of_one_column_is_an_empty_value_and_at_the_end_is_told(written: Any) -> None:
    path = written("score\n5\n\n7\n\n\n")
    found = reading(path)
    for _ in range(2):
        assert [row["score"] for batch in found.batches() for row in batch.rows.to_pylist()] == ["5", None, "7"]
    assert found.notes == ["x.csv: empty lines at the end, which are no rows: 2"]


SPACE = (
    "3 fields where the header names 2: a quotation mark must follow the delimiter at once, unless a contract says "
    "`dialect: {skipInitialSpace: true}`"
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n3\n", [(3, "1 field where the header names 2: column 'b' has none")]),
        ("a,b\n1,2,3\n", [(2, "3 fields where the header names 2: a field with the delimiter in it must be quoted")]),
        ("a,b\n1,2,\n", [(2, "3 fields where the header names 2: the delimiter at the end is one too many")]),
        ('a,b\n1, "x, y"\n', [(2, SPACE)]),
        ('a,b\n"x\ny",2\n\n3\n4,5\n', [(5, "1 field where the header names 2: column 'b' has none")]),
    ],
)
def test_a_row_of_another_width_is_a_bad_row_with_its_line(
    written: Any, content: str, said: list[tuple[int, str]]
) -> None:
    assert bad(written(content)) == said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "x.csv has no line with the names of the columns"),
        ("\n\n", "x.csv has no line with the names of the columns"),
        ('a,b\n1,"2\n', "x.csv, line 2: unexpected end of data; is a quotation mark missing?"),
        ('a,b\nx,"y\nz\n1,2\n', "x.csv, line 2: unexpected end of data; is a quotation mark missing?"),
        ('a,b\n1,2\n"x"y,2\n', "x.csv, line 3: ',' expected after '\"'; is a quotation mark missing, or not doubled"),
        (b"a\nok\ncaf\xe9\n", "x.csv, line 3: byte 0xE9 is not UTF-8. It could be `encoding: "),
        (b"a,b\nok,1\n" + b"x,2\n" * 300_000 + b"caf\xe9,3\n", "x.csv, line 300003: byte 0xE9 is not UTF-8"),
        ("id\n1\n2\n".encode("utf-16-le"), "x.csv, has no byte order mark, and every second byte of it is zero"),
        ("id,b\n\ufeff1,2\n", "x.csv, line 2: it begins with a byte order mark"),
        ("id\n\ufeff", "x.csv, line 2: it begins with a byte order mark"),
        ("id,b\n1,2\n\ufeffid,b\n3,4\n", "x.csv, line 3: it begins with a byte order mark"),
        ("'a','b'\n'1','2'\n", "x.csv: every name in line 1 stands in single quotes"),
        ("x" * 300_000, "x.csv: line 1 has more than 262144 characters"),
        ("id,name\n--,----\n1,Ann\n", "x.csv: the line below line 1 is '--', a rule and no row"),
        ("<html><body>Error 503</body></html>\n", "x.csv is HTML, whatever its name says"),
        ("\ufeff\n<?xml version='1.0'?>\n<a/>\n", "x.csv is XML, whatever its name says"),
        ('[\n  {"id": 1}\n]\n', "x.csv is JSON, whatever its name says"),
        ('{"id": 1, "n": 2}\n{"id": 2, "n": 3}\n', "x.csv is JSON, whatever its name says"),
    ],
)
def test_a_broken_text_is_refused_with_the_place_and_the_reason(
    written: Any, content: str | bytes, message: str
) -> None:
    path = written(content)
    assert refusal(path).startswith(message)


def test_json_in_the_lines_of_one_column_is_text_where_a_contract_names_the_column(written: Any) -> None:
    contract = {"dialect": {"header": False}, "schema": {"fields": [{"name": "message"}]}}
    assert table(written('{"id": 1}\n{"id": 2}\n'), contract) == (["message"], [('{"id": 1}',), ('{"id": 2}',)])


@pytest.mark.parametrize(
    ("text", "encoding"), [("名,x\n1,ü\n", "utf-16"), ("a,x\n1,ü\n", "utf-32"), ("a,x\n1,ü\n", "utf-8-sig")]
)
def test_a_byte_order_mark_says_the_encoding(written: Any, text: str, encoding: str) -> None:
    assert table(written(text.encode(encoding)))[1] == [("1", "ü")]


def test_a_second_byte_order_mark_is_no_part_of_a_name(written: Any) -> None:
    assert table(written("\ufeff\ufeffid,name\n1,Ann\n"))[0] == ["id", "name"]


@pytest.mark.parametrize("encoding", ["cp1252", "cp1251", "shift_jis", "utf-16-le", "gb18030"])
def test_the_encoding_that_the_contract_names_is_read(written: Any, encoding: str) -> None:
    text = {"cp1251": "имя", "shift_jis": "名前", "gb18030": "名字"}.get(encoding, "naïve")
    path = written(f"a,b\n{text},1\n".encode(encoding))
    assert table(path, {"encoding": encoding})[1] == [(text, "1")]


def test_an_encoding_that_does_not_fit_is_refused(written: Any) -> None:
    path = written("a,b\n1,2\n" + "é,1\n")
    assert "about line 3" in refusal(path, {"encoding": "ascii"}) or "not UTF-8" in refusal(path, {"encoding": "ascii"})
    assert "byte order mark of UTF-8" in refusal(written("\ufeffa,b\n1,2\n"), {"encoding": "cp1252"})
    assert "no encoding that is known" in refusal(path, {"encoding": "klingon"})


def test_marks_inside_unquoted_fields_are_part_of_them(written: Any) -> None:
    content = 'size,n\n5" pipe,1\n"a\nb",2\n7",3\n"x, ""y""",4\n'
    assert table(written(content))[1] == [('5" pipe', "1"), ("a\nb", "2"), ('7"', "3"), ('x, "y"', "4")]


def test_escapes_and_spaces_are_read_as_the_contract_says(written: Any) -> None:
    path = written('a, b\n1, "x \\"y\\""\n')
    dialect = {"escapeChar": "\\", "skipInitialSpace": True, "doubleQuote": False}
    assert table(path, {"dialect": dialect}) == (["a", "b"], [("1", 'x "y"')])
    assert table(written("a,b\n'1','x,''y'\n"), {"dialect": {"quoteChar": "'"}})[1] == [("1", "x,'y")]


def test_a_line_break_across_the_end_of_a_block_loses_nothing(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 64)
    for shift in range(70):
        value = "z" * shift + "\r\nB"
        path = written(f'id,s\r\n1,"{value}"\r\n2,"x"\r\n')
        assert table(path)[1] == [("1", value), ("2", "x")]


cell = st.text(alphabet='ab1 ,;"\r\n\tü.', max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.lists(cell, min_size=3, max_size=3), min_size=1, max_size=30),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    block=st.integers(4, 80),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_whatever_a_csv_writer_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], end: str, block: int, quoting: Any
) -> None:
    text = io.StringIO(newline="")
    if quoting == csv.QUOTE_MINIMAL:  # then the writer does not quote line ends of another kind
        rows = [[value.replace("\r", "").replace("\n", "") for value in row] for row in rows]
    writer = csv.writer(text, lineterminator=end, quoting=quoting)
    writer.writerow(["a", "b", "c"])
    writer.writerows(rows)
    path = tmp_path_factory.mktemp("x") / "x.csv"
    path.write_bytes(text.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_module, "BLOCK_BYTES", block)
        found = reading(path, {"dialect": {"delimiter": ",", "header": True}})
        batches = list(found.batches())
    expected = [tuple(value or None for value in row) for row in rows]
    assert [tuple(row.values()) for batch in batches for row in batch.rows.to_pylist()] == expected
    reader = csv.reader(io.StringIO(text.getvalue(), newline=""))
    lines, line = [], 1
    for record in reader:
        if record and line > 1:
            lines.append(line)
        line = reader.line_num + 1
    assert [line for batch in batches if batch.lines for line in batch.lines().to_pylist()] == lines


@pytest.mark.parametrize("limit", [5, 9])
def test_a_line_over_its_budget_is_refused(written: Any, limit: int) -> None:
    with pytest.raises(OverBudget, match="line_bytes"):
        list(reading(written("one,two\n1,2\n1,222222222\n"), budget=Budget(line_bytes=limit)).batches())
