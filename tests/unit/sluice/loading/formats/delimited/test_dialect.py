"""The dialect of a text: what the contract says, and for the rest what its beginning shows, with the evidence."""

from __future__ import annotations

from typing import Any

import pytest

from sluice.loading.contracts.contract import parse_contract
from sluice.loading.errors import AmbiguousFile, RefusedFile
from sluice.loading.formats.delimited.dialect import DelimitedDialect, find_dialect


def found(text: str, contract: dict[str, Any] | None = None, *, whole: bool = True) -> DelimitedDialect:
    said = parse_contract(contract) if contract is not None else None
    return find_dialect(text, whole=whole, label="x.csv", ending=".csv", contract=said)


def refused(text: str, contract: dict[str, Any] | None = None, *, whole: bool = True) -> str:
    with pytest.raises((RefusedFile, AmbiguousFile)) as caught:
        found(text, contract, whole=whole)
    return str(caught.value)


def of_fields(*names: str, **dialect: Any) -> dict[str, Any]:
    return {"dialect": dialect, "schema": {"fields": [{"name": name} for name in names]}}


def test_what_is_found_is_told_with_why() -> None:
    dialect = found("id;name\n1;Ann\n2;Bob\n")
    assert (dialect.delimiter, dialect.columns, dialect.skipped_lines) == (";", ["id", "name"], 1)
    assert dialect.evidence["delimiter"].startswith("';': 100%")
    assert dialect.evidence["header"].startswith("line 1: 'id' is text above values that are not")
    assert dialect.plain


def test_a_separator_line_names_the_delimiter_and_is_no_row() -> None:
    dialect = found("sep=;\nid;name\n1;Ann\n")
    assert (dialect.delimiter, dialect.skipped_lines) == (";", 2)
    assert dialect.evidence["delimiter"] == "';': line 1 says so"
    assert "the contract says ','" in refused("sep=;\nid;name\n1;Ann\n", {"dialect": {"delimiter": ","}})


def test_without_a_header_the_columns_have_the_contracts_names_or_numbers() -> None:
    assert found("1,Ann\n2,Bob\n", {"dialect": {"header": False}}).columns == ["column_1", "column_2"]
    dialect = found("1,Ann\n2,Bob\n", of_fields("id", "name", header=False))
    assert (dialect.columns, dialect.skipped_lines) == (["id", "name"], 0)
    assert "has 2 fields, and the contract names 3" in refused("1,A\n2,B\n", of_fields("a", "b", "c", header=False))


def test_a_contract_with_one_field_makes_each_line_a_value() -> None:
    dialect = found("message\na,b\nc\n", of_fields("message"))
    assert (dialect.delimiter, dialect.plain) == (None, False)
    assert dialect.evidence["delimiter"] == "none: the contract has one field"
    assert list(dialect.reader(iter(["a,b;c\n"]))) == [["a,b;c"]]


def test_the_row_of_names_may_stand_further_down() -> None:
    dialect = found("A title\n\nid,name\n1,Ann\n", {"dialect": {"headerRows": [3]}})
    assert (dialect.columns, dialect.skipped_lines) == (["id", "name"], 3)
    assert "no line with the names" in refused("a\n", {"dialect": {"headerRows": [5]}})


def test_comments_before_the_names_are_passed_over() -> None:
    dialect = found("# made today\nid,name\n1,Ann\n", {"dialect": {"commentChar": "#", "header": True}})
    assert (dialect.columns, dialect.skipped_lines, dialect.plain) == (["id", "name"], 2, False)


def test_names_may_stand_in_several_lines_of_a_quoted_field() -> None:
    dialect = found('id,"a\nname"\n1,Ann\n2,Bob\n')
    assert (dialect.columns, dialect.skipped_lines) == (["id", "a\nname"], 2)


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ({}, True),
        ({"quoteChar": "'"}, False),
        ({"doubleQuote": False}, False),
        ({"escapeChar": "\\"}, False),
        ({"skipInitialSpace": True}, False),
        ({"delimiter": "§"}, False),
    ],
)
def test_what_the_fast_reader_knows_is_plain(said: dict[str, Any], plain: bool) -> None:
    delimiter = said.get("delimiter", ",")
    text = f"id{delimiter}name\n1{delimiter}Ann\n"
    assert found(text, {"dialect": {"delimiter": delimiter, "header": True, **said}}).plain is plain


@pytest.mark.parametrize(
    ("text", "whole", "said"),
    [
        ("", True, "no line with the names of the columns"),
        ("\r\n\n", True, "no line with the names of the columns"),
        ("x" * 50, False, "line 1 has more than 50 characters"),
        ('"a,b\n', True, "is a quotation mark missing?"),
        ("'a','b'\n'1','2'\n", True, "stands in single quotes"),
    ],
)
def test_a_text_without_what_a_dialect_needs_is_refused(text: str, whole: bool, said: str) -> None:
    assert said in refused(text, whole=whole)
