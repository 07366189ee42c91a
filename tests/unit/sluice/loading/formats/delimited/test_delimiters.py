"""Which delimiter a text has: found, named by the contract, or refused with every reading."""

from __future__ import annotations

from typing import Any

import pytest

from sluice.loading.errors import AmbiguousFile
from tests.unit.sluice.loading.formats.delimited.reading import reading, refusal, table


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


def test_the_evidence_is_in_words(written: Any) -> None:
    assert reading(written("id;name\n1;Ann\n2;Bob\n")).evidence == {
        "format": "delimited text",
        "encoding": "utf-8: every byte is valid UTF-8",
        "delimiter": "';': 100% of the rows looked at have 2 fields as the header has",
        "header": "line 1: 'id' is text above values that are not",
        "quoting": "'\"', doubled inside",
        "line ends": "LF",
    }
