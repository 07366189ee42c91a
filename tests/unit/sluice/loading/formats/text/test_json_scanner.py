"""The values of a JSON document one after another, each with its line, and no more of it in memory than one value."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading.errors import RefusedFile
from sluice.loading.formats.text import json_scanner
from sluice.loading.formats.text.json_scanner import Scanner
from sluice.loading.reading.source import Member, members


@pytest.fixture
def member(tmp_path: Path) -> Any:
    """A file, of which only name and budget are asked."""
    path = tmp_path / "x.json"
    path.write_text("{}")

    def make(**budget: int) -> Member:
        with path.open("rb") as file:
            (found,) = members(file, path.name, Budget(**budget))
        return found

    return make


@pytest.fixture(params=[1, 3, 64 * 1024])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many characters are read at once."""
    monkeypatch.setattr(json_scanner, "_PIECE", request.param)
    return int(request.param)


def refusal(scanner: Scanner, step: Any) -> str:
    with pytest.raises(RefusedFile) as caught:
        step(scanner)
    return str(caught.value)


@pytest.mark.usefixtures("piece")
def test_each_element_has_the_line_that_it_begins_at(member: Any) -> None:
    scanner = Scanner(io.StringIO(' [1,\n\n {"a":\n 1.50},"x",\r\n[] , null]\n'), member())
    found = list(scanner.elements())
    assert found == [(1, 1), (3, {"a": Decimal("1.50")}), (4, "x"), (5, []), (5, None)]
    scanner.end()


@pytest.mark.usefixtures("piece")
def test_a_number_is_read_to_its_end(member: Any) -> None:
    assert [value for _, value in Scanner(io.StringIO("[12345, -1.25e3 ]"), member()).elements()] == [
        12345, Decimal(-1250)
    ]  # fmt: skip
    assert Scanner(io.StringIO("123456"), member()).value() == (1, 123456)


@pytest.mark.usefixtures("piece")
def test_the_rows_may_stand_under_a_key(member: Any) -> None:
    scanner = Scanner(io.StringIO('{"meta": {"rows": [0]}, "rows": [1, 2], "more": null} '), member())
    scanner.enter("rows")
    assert [value for _, value in scanner.elements()] == [1, 2]
    scanner.leave("rows")


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1,]", "x.json, line 1, character 4: "),
        ("[1 2]", "'2' stands where ']' is expected"),
        ("[1", "it ends before a ']'"),
        ("[tru]", "character 2"),
        ('["a\nb"]', "not JSON that can be read"),
        ('[{"a": 1,\n "a": 2}]', "the key 'a' stands twice in one object"),
        ("[NaN]", "NaN is not JSON: write null"),
        ("[-Infinity]", "Infinity is not JSON"),
        ("[" + "9" * 5000 + "]", "not JSON that can be read"),
        ("[" * 100_000, "nests its values too deeply"),
        ("{}", "'{' stands where '[' is expected"),
        ("", "it ends before a '['"),
    ],
)
def test_what_is_no_array_is_refused_with_its_place(member: Any, text: str, said: str) -> None:
    assert said in refusal(Scanner(io.StringIO(text), member()), lambda scanner: list(scanner.elements()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"other": 1}', "the document has no key 'rows'"),
        ("{}", "the document has no key 'rows'"),
        ("[]", "'[' stands where '{' is expected"),
        ('{"a" 1}', "'1' stands where ':' is expected"),
    ],
)
def test_a_document_without_the_key_is_refused(member: Any, text: str, said: str) -> None:
    assert said in refusal(Scanner(io.StringIO(text), member()), lambda scanner: scanner.enter("rows"))


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (', "rows": 1}', "the key 'rows' stands twice in one object"),
        ("", "it ends before a '}'"),
        ("} x", "'x' follows where the document has ended"),
    ],
)
def test_what_stands_behind_the_rows_is_looked_at(member: Any, rest: str, said: str) -> None:
    scanner = Scanner(io.StringIO('{"rows": []' + rest), member())
    scanner.enter("rows")
    assert list(scanner.elements()) == []
    assert said in refusal(scanner, lambda one: one.leave("rows"))


def test_a_value_has_a_longest_length(member: Any) -> None:
    scanner = Scanner(io.StringIO('[1,\n"' + "x" * 300_000 + '"]'), member(line_bytes=100_000))
    with pytest.raises(OverBudget, match=r"x\.json, line 2: a value is too long"):
        list(scanner.elements())
