"""How delimited text is read: nothing is guessed, changed or lost."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading.contracts.contract import parse_contract
from sluice.loading.errors import AmbiguousFile, RefusedFile
from sluice.loading.formats import read
from sluice.loading.formats.delimited import blocks as blocks_module
from sluice.loading.reading.batch import Reading
from sluice.loading.reading.source import members


def reading(path: Path, contract: dict[str, Any] | None = None, budget: Budget | None = None) -> Reading:
    file = path.open("rb")
    OPEN.append(file)
    (member,) = members(file, path.name, budget or Budget())
    return read(member, parse_contract(contract) if contract else None)


OPEN: list[IO[bytes]] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def table(path: Path, contract: dict[str, Any] | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
    found = reading(path, contract)
    rows: list[tuple[Any, ...]] = []
    for batch in found.batches():
        assert not batch.bad
        rows += zip(*(column.to_pylist() for column in batch.rows.columns), strict=True)
    return found.columns, rows


def bad(path: Path, contract: dict[str, Any] | None = None) -> list[tuple[int, str]]:
    return [(one.line, one.reason) for batch in reading(path, contract).batches() for one in batch.bad]


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(content: str | bytes, name: str = "x.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(path: Path, contract: dict[str, Any] | None = None, kind: type[Exception] = RefusedFile) -> str:
    with pytest.raises(kind) as caught:
        table(path, contract)
    return str(caught.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(written: Any, delimiter: str) -> None:
    content = delimiter.join(["a", "b", "c"]) + "\n" + delimiter.join(['"1,5"', '"x;y"', "z"])
    assert table(written(content)) == (["a", "b", "c"], [("1,5", "x;y", "z")])


@pytest.mark.parametrize(
    ("content", "readings"),
    [
        ("Price, EUR;Qty\n1,50;2\n2,75;3\n", ["with ';'", "'Price, EUR', 'Qty'", "with ','", "'Price', ' EUR;Qty'"]),
        ("Price, EUR\tQty\n1,50\t2\n2,75\t3\n", ["with tab", "with ','"]),
        ("Price, EUR|Qty\n1,50|2\n", ["with '|'", "with ','"]),
        ("id,codes (a;b;c)\n1,x;y;z\n2,u;v;w\n", ["with ','", "with ';'"]),
        ("id,name,notes (a;b)\n1,Ann,x;y\n2,Bob, Jr,p;q\n", ["with ','", "but line 3 has 4 fields", "with ';'"]),
        ("id,name,notes (a;b)\n1,Ann, Jr,x;y\n2,Bob, Jr,p;q\n", ["but line 2 has 4 fields"]),
        ("id,name,notes (a|b)\n1,Ann,x|y\n2,Bob|q\n3,Cyd|z\n", ["but line 3 has 2 fields"]),
        ("Price, EUR;Qty\n", ["with ';'", "with ','"]),
        ("id:name\n1:Ann\n2:Bob\n", ["one column, 'id:name'", "with ':' it has 2 columns"]),
        ("id\x1fname\n1\x1fAnn\n", ["2 columns"]),
        ("id   name\n1    Ann\n22   Bob\n", ["one column", "2 columns with spaces between"]),
        ('"id,name"\n"1,Ann"\n', ["quoted as a whole", "with ',' it has 2 columns: 'id', 'name'"]),
    ],
)
def test_a_text_with_two_readings_is_refused_with_both(written: Any, content: str, readings: list[str]) -> None:
    message = refusal(written(content), kind=AmbiguousFile)
    for one in readings:
        assert one in message
    assert "contract" in message


def test_the_contract_settles_which_reading_is_meant(written: Any) -> None:
    path = written("Price, EUR;Qty\n1,50;2\n")
    assert table(path, {"dialect": {"delimiter": ";"}}) == (["Price, EUR", "Qty"], [("1,50", "2")])
    assert table(path, {"dialect": {"delimiter": ","}}) == (["Price", " EUR;Qty"], [("1", "50;2")])
    path = written("id:name\n1:Ann\n")
    assert table(path, {"dialect": {"delimiter": ":"}}) == (["id", "name"], [("1", "Ann")])
    assert table(path, {"schema": {"fields": [{"name": "id:name"}]}}) == (["id:name"], [("1:Ann",)])


@pytest.mark.parametrize(
    ("content", "columns", "row"),
    [
        ('"Item";"Price, EUR"\n"Tea";"1,50"\n"Jam";"2,00"\n', ["Item", "Price, EUR"], ("Tea", "1,50")),
        ("day;amount\n2024-01-01;1,50\n2024-01-02;2,50\n", ["day", "amount"], ("2024-01-01", "1,50")),
        ("a;b, EUR;c;d\n1,5;2,5;3,5;4,5\n1,6;2,6;3,6;4,6\n", ["a", "b, EUR", "c", "d"], ("1,5", "2,5", "3,5", "4,5")),
        ("Name (last, first);n;m\nAnn;5;1\nBob;6;1\n", ["Name (last, first)", "n", "m"], ("Ann", "5", "1")),
        ("id,tags\n1,a|b\n2,c\n", ["id", "tags"], ("1", "a|b")),
        ("a b,c\n1 2,3\n", ["a b", "c"], ("1 2", "3")),
    ],
)
def test_a_delimiter_of_lists_and_decimals_is_not_taken_for_that_of_the_file(
    written: Any, content: str, columns: list[str], row: tuple[str, ...]
) -> None:
    found, rows = table(written(content))
    assert (found, rows[0]) == (columns, row)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;"])
def test_a_separator_line_of_a_spreadsheet_is_honoured(written: Any, line: str, end: str) -> None:
    assert table(written(end.join([line, "Name;City", "Ann;Oslo", ""]))) == (["Name", "City"], [("Ann", "Oslo")])
    assert table(written(end.join(["sep=,", "a,b,c", "1,2,3", ""]))) == (["a", "b", "c"], [("1", "2", "3")])


def test_a_separator_line_that_the_contract_contradicts_is_refused(written: Any) -> None:
    assert "line 1 says 'sep=;'" in refusal(written("sep=;\na;b\n1;2\n"), {"dialect": {"delimiter": ","}})


def test_a_delimiter_that_the_header_lacks_is_not_taken_where_another_one_fits(written: Any) -> None:
    message = refusal(written("sep=;\nName,Qty\nAnn,1\n"), kind=AmbiguousFile)
    assert "';': line 1 says so, and line 2 has none: with ',' it has 2 columns: 'Name', 'Qty'" in message
    message = refusal(written("Name,Qty\nAnn,1\n"), {"dialect": {"delimiter": ";"}}, kind=AmbiguousFile)
    assert "';': named in the contract, and line 1 has none" in message
    one = {"dialect": {"delimiter": ";"}, "schema": {"fields": [{"name": "Name,Qty"}]}}
    assert table(written("Name,Qty\nAnn,1\n"), one) == (["Name,Qty"], [("Ann,1",)])
    assert table(written("sep=;\nName\nAnn, Jr\n")) == (["Name"], [("Ann, Jr",)])


def test_the_ending_of_the_name_counts_and_not_what_stands_before_it(written: Any) -> None:
    assert table(written("id,price\n1,10\n2,20\n", "prices.tsv.csv"))[0] == ["id", "price"]
    assert table(written("id\ta, b\n1\t2, 3\n", "x.tsv"))[0] == ["id", "a, b"]
    assert "the name says tab" in refusal(written("id,price\n1,10\n", "x.TSV"), kind=AmbiguousFile)


@pytest.mark.parametrize(
    "content",
    [
        *("2,Bob\n", "2,Bob", "1,Ann\n2,Bob\n", "Ann,2024-01-01\nBob,2024-01-02\n", "7\n", "1.5;2\n1.5;2\n"),
        *(
            "Ann,Oslo\n",
            "Ann,Oslo\nBob,Rome\n",
            "ann;oslo\nbob;new york\ncid;rome\n",
            "ANN\nBOB\n",
            "red\ngreen\nblue\n",
        ),
        *(
            "张伟,北京\n王芳,上海\n",
            "north_sea,big_ship\nred_sea,old_boat\n",
            "Ann Lee|Oslo\n\nBob Ray|Rome\n",
            "ann,\nbob,\n",
        ),
        *(
            "New York,USA\nParis,France\nRome,Italy\n",
            "Hannover 96\nBayern\nDresden\n",
            "Anna,Berlin\nbob,paris\n",
            "error,disk full\nwarning,cpu hot\ninfo,all good\n",
            "USA,Compact\nKorea,Small\n",
            "when do you sleep at night\nNever\n",
        ),
    ],
)
def test_a_first_line_that_looks_like_a_row_is_refused(written: Any, content: str) -> None:
    message = refusal(written(content), kind=AmbiguousFile)
    assert "line 1 can be the names of the columns or a row" in message
    assert "`dialect: {header: false}`" in message


@pytest.mark.parametrize(
    "header", ["id,name", "country,2019,2020", "id,1,2,3", ",a,b", "2020,2021", "total 5,x", "a,a", "id,2024-01-01"]
)
def test_other_first_lines_are_headers(written: Any, header: str) -> None:
    width = header.count(",") + 1
    content = header + "\n" + "\n".join(",".join(str(9 + row + one) for one in range(width)) for row in range(3))
    assert table(written(content))[0] == header.split(",")


@pytest.mark.parametrize(
    "rows",
    [
        ["Ann,Oslo", "Bob,Rome", "Cid,Oslo"],
        ["ann@example.org,x", "bob@example.org,y", "cid@example.org,z"],
        ["Ann,DE-0042", "Bob,FR-0001", "Cid,IT-7000"],
        ["Ann,https://a.example/x", "Bob,https://a.example/y", "Cid,ftp://a.example/"],
    ],
)
def test_a_first_line_of_text_that_is_made_as_the_values_below_is_refused(written: Any, rows: list[str]) -> None:
    message = refusal(written("\n".join(rows)), kind=AmbiguousFile)
    assert "line 1 can be the names of the columns or a row" in message
    names = "who,what\n"
    assert table(written(names + "\n".join(rows)))[0] == ["who", "what"]
    assert table(written("\n".join(rows)), {"dialect": {"header": True}})[0] == rows[0].split(",")


@pytest.mark.parametrize(
    "rows",
    [
        *(
            "q1,x1\nq1 sum,7\n",
            "name,city\nAnn,\n",
            "name,city\nann,oslo\n",
            "Lastname,Town\nLee,Oslo\n",
            "color\nred\nblue\n",
        ),
        *(
            "kraj,stolica\nPolska,Warszawa\n",
            "Kundenname,Ort\nMeier,Bonn\n",
            "naam,plaats\nann,delft\n",
            "VILLE,RUE\nNICE,X\n",
        ),
        *(
            "姓名,所在城市\n张伟,北京\n",
            "orderTaker,x\nann,y\n",
            "order_id,ref\nab,cd\n",
            "x,remark\n,\n",
            "who,price\n",
        ),
    ],
)
def test_a_first_line_of_words_is_a_header_where_something_tells_it_from_the_rows(written: Any, rows: str) -> None:
    found = reading(written(rows))
    assert found.columns == rows.partition("\n")[0].split(",")
    assert "if it is a row, say `header: false`" in found.evidence["header"]


@pytest.mark.parametrize("rule", ["|----|---|", "|:---|--:|", "----|---|", "====|"])
def test_a_rule_below_the_names_is_no_row(written: Any, rule: str) -> None:
    message = refusal(written(f"| id | n |\n{rule}\n| 1 | a |\n| 2 | b |\n"), kind=AmbiguousFile)
    assert "a rule and no row" in message or "2 fields" in message


def test_a_first_row_that_is_not_seen_to_its_end_says_nothing_of_the_names(written: Any) -> None:
    assert table(written('x\n"' + "y" * 300_000 + '"\n')) == (["x"], [("y" * 300_000,)])
    assert table(written("x\n" + "y" * 300_000 + "\n"))[0] == ["x"]


def test_blank_lines_below_a_single_name_are_no_rows(written: Any) -> None:
    assert table(written("id\n\n\n")) == (["id"], [])


def test_names_that_stand_there_again_are_two_files_put_together(written: Any) -> None:
    message = refusal(written("name,n\nAnn,1\nname,n\nBob,2\n"), kind=AmbiguousFile)
    assert "line 1 stands there again further down" in message


def test_a_file_without_header_is_read_by_the_names_of_its_contract(written: Any) -> None:
    fields = {"schema": {"fields": [{"name": "id"}, {"name": "name"}]}}
    path = written("1,Ann\n2,Bob\n")
    assert table(path, {"dialect": {"header": False}, **fields}) == (["id", "name"], [("1", "Ann"), ("2", "Bob")])
    assert table(path, {"dialect": {"header": False}})[0] == ["column_1", "column_2"]
    assert table(path, {"dialect": {"header": True}}) == (["1", "Ann"], [("2", "Bob")])
    assert "has 2 fields, and the contract names 1" in refusal(
        path, {"dialect": {"header": False, "delimiter": ","}, "schema": {"fields": [{"name": "id"}]}}
    )


def test_lines_before_the_header_are_left_out_where_the_contract_says_so(written: Any) -> None:
    path = written('Report 2024\n\n"made ""by"" Ann"\nid,name\n1,Ann\n')
    message = refusal(path, kind=AmbiguousFile)
    assert "If line 4 has the names, write `dialect: {headerRows: [4]}`" in message
    assert table(path, {"dialect": {"headerRows": [4]}}) == (["id", "name"], [("1", "Ann")])


def test_comments_are_left_out_where_the_contract_says_so(written: Any) -> None:
    path = written('# made, today\nid,name\n1,Ann\n# x\n2,"a\n# b"\n')
    assert table(path, {"dialect": {"commentChar": "#"}}) == (["id", "name"], [("1", "Ann"), ("2", "a\n# b")])


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


def test_the_evidence_is_in_words(written: Any) -> None:
    assert reading(written("id;name\n1;Ann\n2;Bob\n")).evidence == {
        "format": "delimited text",
        "encoding": "utf-8: every byte is valid UTF-8",
        "delimiter": "';': 100% of the rows looked at have 2 fields as the header has",
        "header": "line 1: 'id' is text above values that are not",
        "quoting": "'\"', doubled inside",
        "line ends": "LF",
    }


@pytest.mark.parametrize("first", [",,", "Report of May,,", " ,  ,"])
def test_a_first_line_that_names_less_than_half_of_the_columns_is_ambiguous(written: Any, first: str) -> None:
    path = written(f"{first}\nid,name,price\n1,a,2.5\n2,b,3.5\n")
    message = refusal(path, kind=AmbiguousFile)
    assert "line 1 names" in message
    assert "headerRows: [2]" in message
    assert table(path, {"dialect": {"headerRows": [2]}}) == (
        ["id", "name", "price"],
        [("1", "a", "2.5"), ("2", "b", "3.5")],
    )
    assert len(table(path, {"dialect": {"headerRows": [1]}})[1]) == 3


def test_a_column_without_a_name_is_taken_where_most_have_one(written: Any) -> None:
    assert table(written("id,name,\n1,a,x\n2,b,y\n"))[0] == ["id", "name", ""]
