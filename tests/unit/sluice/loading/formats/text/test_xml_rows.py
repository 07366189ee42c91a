"""XML: a row is an element that the contract names; no value is dropped, and no small file becomes a large one."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tests.unit.sluice.loading.readings import refusal, rows, seen, table, written

CONTRACT = {"sluice": {"row_tag": "item"}}
ORDERS = """<?xml version="1.0" encoding="UTF-8"?>
<orders xmlns="urn:x" xmlns:y="urn:y" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <made by="someone">2024</made>
  <item id="1">
    <name>Tea &amp; <![CDATA[<milk>]]></name>
    <price currency="EUR">1.50</price>
    <from><city>Zürich</city><zip>08001</zip></from>
  </item>
  <y:item id="2"><y:name> two
lines </y:name><price currency="CHF"/><note xsi:nil="true"/><from/></y:item>
</orders>
"""


def test_attributes_and_elements_of_a_row_are_its_columns(tmp_path: Path) -> None:
    found, lines, reading = seen(written(tmp_path, "x.xml", ORDERS), CONTRACT)
    assert found.schema.types == [pa.string()] * len(found.column_names)
    assert found.to_pylist() == [
        {
            "id": "1", "name": "Tea & <milk>", "price/currency": "EUR", "price": "1.50", "from/city": "Zürich",
            "from/zip": "08001", "note": None, "from": None,
        },
        {
            "id": "2", "name": " two\nlines ", "price/currency": "CHF", "price": None, "from/city": None,
            "from/zip": None, "note": None, "from": None,
        },
    ]  # fmt: skip
    assert lines == [4, 9]
    assert (reading.typed, reading.evidence["element of a row"]) == (False, "item")


def test_what_xml_says_of_types_is_no_value(tmp_path: Path) -> None:
    content = '<a><item xmlns="u" xsi:schemaLocation="x"><b xsi:type="xs:int">1</b></item></a>'
    assert rows(written(tmp_path, "x.xml", content), CONTRACT) == [{"b": "1"}]


def test_an_empty_element_is_an_empty_text_where_the_contract_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, "x.xml", "<a><item><b/><c>1</c></item><item/></a>")
    contract = {**CONTRACT, "schema": {"fields": [{"name": "b"}], "missingValues": ["-"]}}
    assert rows(path, contract) == [{"b": "", "c": "1"}, {"b": None, "c": None}]


def test_the_contract_must_name_the_element_and_an_example_is_given(tmp_path: Path) -> None:
    path = written(tmp_path, "x.xml", "<orders><order><id>1</id></order></orders>")
    assert "row_tag: order" in refusal(path)
    assert "its rows may be 'order'" in refusal(path, CONTRACT)
    assert rows(written(tmp_path, "y.xml", "<orders/>"), CONTRACT) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<a><item><b>1</b><b>2</b></item></a>", "line 1: 'b' stands twice in one row"),
        ('<a><item b="1"><b>2</b></item></a>', "'b' stands twice"),
        ("<a>\n<item>\n<b>1</b>text</item></a>", "line 3: the text 'text' stands beside elements"),
        ("<a><item><b>x<c>1</c></b></item></a>", "the text 'x' stands beside elements"),
        ("<a><item><item/></item></a>", "an element 'item' stands in another one"),
        ("<a>\n<item><b>1</b></a>", "line 2, character 17: not XML that can be read (mismatched tag)"),
        ("<a><item><b>1</b></item>", "no element found"),
        ("", "no element found"),
        ("id;name\n1;2\n", "not XML that can be read"),
        ('<!DOCTYPE a [<!ENTITY b "x">]><a><item><c>&b;</c></item></a>', "a document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "a document type"),
        ("<a><item><b>&unknown;</b></item></a>", "undefined entity"),
        ('<?xml version="1.0" encoding="klingon"?><a/>', "encoding"),
        (b"<a><item><b>\xff</b></item></a>", "not well-formed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert said in refusal(written(tmp_path, "x.xml", content), CONTRACT)


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1", "windows-1252"])
def test_the_encoding_is_the_document_s_own_or_the_contract_s(tmp_path: Path, encoding: str) -> None:
    body = "<a><item><b>é</b></item></a>"
    declared = written(tmp_path, "x.xml", f'<?xml version="1.0" encoding="{encoding}"?>{body}'.encode(encoding))
    assert rows(declared, CONTRACT) == [{"b": "é"}]
    plain = written(tmp_path, "y.xml", body.encode("iso-8859-1"))
    assert rows(plain, {**CONTRACT, "encoding": "iso-8859-1"}) == [{"b": "é"}]


def test_many_rows_come_whole_and_in_order(tmp_path: Path) -> None:
    content = "".join(f"<item><n>{number}</n><s>{'x' * (number % 300)}</s></item>\n" for number in range(25_000))
    found = table(written(tmp_path, "x.xml", f"<a>{content}</a>"), CONTRACT)
    assert found.column("n").to_pylist() == [str(number) for number in range(25_000)]
    assert [len(text or "") for text in found.column("s").to_pylist()] == [number % 300 for number in range(25_000)]


@pytest.mark.parametrize(
    "content",
    [
        "<a><item><b>" + "x" * 300_000 + "</b></item></a>",
        '<a><item b="' + "x" * 300_000 + '"/></a>',
        "<a><item><" + "b" * 300_000 + "/></item></a>",
        "<a><!-- " + "x" * 300_000 + " --></a>",
        "<a><item>" + "<b>" * 100_000,
        "<a><item>" + "".join(f"<b{number}/>" for number in range(900)) + "<c/>" * 100_000,
    ],
)
def test_a_row_that_is_too_long_is_refused(tmp_path: Path, content: str) -> None:
    said = refusal(written(tmp_path, "x.xml", content), CONTRACT, line_bytes=100_000)
    assert "line_bytes = 100000" in said or "'c' stands twice" in said or "nests its elements too deeply" in said


def test_limits_of_rows_and_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "x.xml", "<a>" + "<item><b>1</b><c>2</c></item>" * 100 + "</a>")
    assert "rows = 99" in refusal(path, CONTRACT, rows=99)
    assert "columns = 1" in refusal(path, CONTRACT, columns=1)
    assert "cells = 199" in refusal(path, CONTRACT, cells=199)
