"""Fixed width: fields are cut out of their places, counted in characters; nothing behind the last one is dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.sluice.loading.readings import refusal, rows, seen, table, written


def contract(*fields: dict[str, Any], **dialect: Any) -> dict[str, Any]:
    return {"schema": {"fields": list(fields)}, "dialect": dialect}


ID, NAME, PRICE = {"name": "id", "width": 4}, {"name": "name", "width": 6}, {"name": "price", "width": 5}
CONTRACT = contract(ID, NAME, PRICE)


@pytest.mark.parametrize("name", ["x.txt", "x.fwf", "x.csv"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_fields_are_cut_out_of_their_places(tmp_path: Path, name: str, end: str) -> None:
    content = end.join(["   1Zoë    1.50", "0002An, a   2,0", "", "   3", "   4Bob", "5"]) + end
    found, lines, reading = seen(written(tmp_path, name, content), CONTRACT)
    assert found.to_pylist() == [
        {"id": "1", "name": "Zoë", "price": "1.50"},
        {"id": "0002", "name": "An, a", "price": "2,0"},
        {"id": "3", "name": None, "price": None},
        {"id": "4", "name": "Bob", "price": None},
        {"id": "5", "name": None, "price": None},
    ]
    assert lines == [1, 2, 4, 5, 6]
    assert (reading.typed, reading.evidence["format"]) == (False, "fixed width")


def test_a_field_may_start_later_and_the_last_one_may_go_on_to_the_end(tmp_path: Path) -> None:
    path = written(tmp_path, "x.txt", "ab--cd   a longer text  \nef--gh\n")
    fields = ({"name": "a", "width": 2}, {"name": "b", "start": 5, "width": 2}, {"name": "c"})
    assert rows(path, contract(*fields)) == [
        {"a": "ab", "b": "cd", "c": "a longer text"},
        {"a": "ef", "b": "gh", "c": None},
    ]


def test_blanks_are_an_empty_text_where_the_contract_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, "x.txt", "   1          1\n   2\n")
    assert rows(path, CONTRACT)[0] == {"id": "1", "name": None, "price": "1"}
    kept = {"schema": {"fields": [ID, NAME, PRICE], "missingValues": ["-"]}}
    assert rows(path, kept) == [{"id": "1", "name": "", "price": "1"}, {"id": "2", "name": None, "price": None}]


def test_a_line_with_the_names_is_no_row(tmp_path: Path) -> None:
    path = written(tmp_path, "x.txt", "ID  Name  Price\n   1Zoë    1.50\n")
    assert rows(path, CONTRACT) == [{"id": "1", "name": "Zoë", "price": "1.50"}]
    assert len(rows(path, contract(ID, NAME, PRICE, header=False))) == 2
    other = written(tmp_path, "y.txt", "No  What  Cost\n====\n   1Zoë    1.50\n")
    assert len(rows(other, CONTRACT)) == 3
    assert len(rows(other, contract(ID, NAME, PRICE, header=True))) == 2
    assert len(rows(other, contract(ID, NAME, PRICE, headerRows=[2]))) == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (({"name": "id"}, {"name": "b", "width": 2}), "the field 'id' needs a `width`"),
        ((ID, {"name": "b", "start": 4, "width": 2}), "the field 'b' starts within 'id', at 4"),
    ],
)
def test_places_that_overlap_are_refused(tmp_path: Path, fields: tuple[dict[str, Any], ...], said: str) -> None:
    assert said in refusal(written(tmp_path, "x.txt", "   1\n"), contract(*fields))


def test_what_stands_behind_the_last_field_is_not_dropped(tmp_path: Path) -> None:
    path = written(tmp_path, "x.txt", "   1Zoë    1.50   \n\n   2Ann    1.50  X\n")
    assert "line 3: 'X' stands behind position 15" in refusal(path, CONTRACT)


def test_without_fields_there_is_an_example(tmp_path: Path) -> None:
    assert "{name: id, width: 8}" in refusal(written(tmp_path, "x.fwf", "1\n"))


def test_many_lines_come_whole_and_in_order(tmp_path: Path) -> None:
    content = "".join(f"{number:6}{'ä' * (number % 9):8}\n" for number in range(200_000))
    fields = ({"name": "n", "width": 6}, {"name": "s", "width": 8})
    found, lines, _ = seen(written(tmp_path, "x.txt", content), contract(*fields))
    assert found.column("n").to_pylist() == [str(number) for number in range(200_000)]
    assert lines == list(range(1, 200_001))


def test_encoding_and_a_line_that_is_too_long(tmp_path: Path) -> None:
    path = written(tmp_path, "x.txt", "   1Zoë    1.50\n".encode("cp850"))
    assert "line 1: byte 0x89 is not UTF-8" in refusal(path, CONTRACT)
    assert table(path, {**CONTRACT, "encoding": "cp850"}).to_pylist()[0]["name"] == "Zoë"
    assert "line_bytes" in refusal(written(tmp_path, "y.txt", "x" * 3_000_000), CONTRACT, line_bytes=100_000)


def test_a_tab_before_the_last_field_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "x.txt", "   1Zoë    1.50\n\n   2\tAnn  1.50\n")
    assert "line 3: a tab stands before the last field" in refusal(path, CONTRACT)
    assert len(rows(written(tmp_path, "y.txt", "   1Zoë    1.50\t\n"), CONTRACT)) == 1
