"""A file and a table that is there: values that it does not hold, columns that one of them lacks, types that widen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sluice.loading.errors import AmbiguousFile
from tests.unit.sluice.loading.loaded import load, query, refusal


def test_a_table_that_was_dropped_is_filled_again(orders: Path, database: Path) -> None:
    load(orders, database)
    query(database, "DROP TABLE t")
    assert load(orders, database).rows == 2


def test_a_value_that_does_not_fit_the_table_is_told_with_what_to_do_and_nothing_stays(
    orders: Path, database: Path, written: Any
) -> None:
    load(orders, database)
    bad = written("bad.csv", "".join(["id,total\n", *(f"{n},1\n" for n in range(2, 5000)), "x1,2\n"]))
    message = refusal(bad, database)
    assert message.startswith("bad.csv, line 5000, column 'id': 'x1' is not an integer of 64 bits, digit for digit")
    assert "widen it: ALTER TABLE" in message
    assert query(database, "SELECT count(*) FROM t") == [(2,)]
    assert query(database, "SELECT count(*) FROM sluice_loads") == [(1,)]


@pytest.mark.parametrize("value", ["007", "99.95", "12345678901234567.89"])
def test_digits_do_not_get_lost_in_a_column_of_integers(orders: Path, database: Path, written: Any, value: str) -> None:
    load(orders, database)
    message = refusal(written("other.csv", f"id\n{value}\n"), database)
    assert f"other.csv, line 2, column 'id': {value!r}" in message
    assert "widen it: ALTER TABLE" in message


@pytest.mark.parametrize(
    ("type_", "value", "said"),
    [
        ("INT", "9223372036854775808", "'9223372036854775808' is not an integer of 64 bits, digit for digit"),
        ("BLOB", "text", "'text' is no value for a column of binary"),
        ("BLOB", "7", "'7' is no value for a column of binary"),
    ],
)
def test_a_value_that_a_column_cannot_hold_is_refused_in_a_sentence(
    written: Any, database: Path, type_: str, value: str, said: str
) -> None:
    database.parent.mkdir()
    query(database, f"CREATE TABLE t (id {type_}, n INT)")
    assert f"x.csv, line 2, column 'id': {said}" in refusal(written("x.csv", f"id,n\n{value},1\n"), database)


def test_text_is_not_changed_by_the_affinity_of_a_column(written: Any, database: Path) -> None:
    database.parent.mkdir()
    query(database, "CREATE TABLE strtab(code STRING, amount DECIMAL(18,2))")
    path = written("strtab.csv", "code,amount\n00501,12345678901234567.89\n")
    assert "would make another number of '00501'" in refusal(path, database, "strtab")


def test_numbers_of_a_later_file_fit_a_column_of_text(orders: Path, database: Path, written: Any) -> None:
    load(orders, database)
    load(written("other.csv", "code,ID\n15,3\n"), database)
    assert query(database, "SELECT id, code, total FROM t WHERE id = 3") == [(3, "15", None)]


def test_a_column_that_the_table_lacks_is_named(orders: Path, database: Path, written: Any) -> None:
    load(orders, database)
    message = refusal(written("other.csv", "id,totl\n3,1\n"), database)
    assert message.startswith("other.csv: the table t lacks the columns ['totl']")


def test_a_file_that_lacks_columns_of_the_table_says_so(written: Any, database: Path) -> None:
    load(written("x.csv", "id,name,n\n1,Ann,2\n"), database)
    report = load(written("y.csv", "id\n2\n"), database)
    assert report.notes == ["the file lacks columns that the table has: ['name', 'n']"]


def test_a_single_row_without_header_is_not_lost(written: Any, database: Path) -> None:
    load(written("people.csv", "id,name\n1,Ann\n"), database)
    with pytest.raises(AmbiguousFile, match="line 1 can be the names of the columns or a row"):
        load(written("more.csv", "2,Bob\n"), database)
    with pytest.raises(AmbiguousFile, match="'Bob' looks like a value, and there is nothing below"):
        load(written("more.csv", "Bob,Rome\n"), database)


def test_a_refusal_of_the_database_names_the_line(orders: Path, database: Path) -> None:
    database.parent.mkdir()
    query(database, "CREATE TABLE t (id INTEGER, code TEXT CHECK (code <> '012'), total REAL, note TEXT)")
    assert refusal(orders, database).startswith("orders.csv: line 3: the database refuses a row: CHECK")
    assert query(database, "SELECT count(*) FROM t") == [(0,)]


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("id TEXT UNIQUE", "a,b,a,c", "line 4: the database refuses a row: UNIQUE constraint failed: t.id"),
        ("id INT CHECK (id > 0)", "1,0,2", "line 3: the database refuses a row: CHECK constraint failed: id > 0"),
        ("id INTEGER PRIMARY KEY", "1,1,2", "line 3: the database refuses a row: UNIQUE constraint failed: t.id"),
    ],
)
def test_a_row_in_the_middle_that_the_database_refuses_is_told_with_its_place(
    written: Any, database: Path, column: str, values: str, said: str
) -> None:
    database.parent.mkdir()
    query(database, f"CREATE TABLE t ({column})")
    path = written("x.csv", "id\n" + values.replace(",", "\n") + "\n")
    assert refusal(path, database, contract={"schema": {"fields": [{"name": "id"}]}}) == f"x.csv: {said}"


@pytest.mark.parametrize("type_", ["REAL", "TIME"])
def test_a_masked_column_goes_into_a_column_of_text_only(written: Any, database: Path, type_: str) -> None:
    database.parent.mkdir()
    query(database, f"CREATE TABLE t (id {type_})")
    contract = {"schema": {"fields": [{"name": "id", "mask": {"kind": "partial"}}]}}
    message = refusal(written("x.csv", "id\nabc\n"), database, contract=contract)
    assert message == (
        f"x.csv: the column 'id' is text when it is masked, and the table's is {type_}: make that text, or load into "
        "another table"
    )


def test_a_column_is_widened_to_text_also_where_text_could_become_its_type(written: Any, database: Path) -> None:
    database.parent.mkdir()
    query(database, "CREATE TABLE t (at TIMESTAMP)")
    contract = {"sluice": {"table": "t", "wider_types": "widen"}}
    assert load(written("x.csv", "at\n1.5\n2.5\n"), database, contract=contract).rows == 2
    assert query(database, "SELECT at FROM t") == [("1.5",), ("2.5",)]


def test_a_column_is_widened_where_the_contract_allows_it(written: Any, database: Path) -> None:
    load(written("g1.csv", "id,amount\n1,100\n2,250\n"), database)
    said = refusal(written("g2.csv", "id,amount\n3,99.95\n"), database)
    assert "line 2, column 'amount': '99.95'" in said
    assert 'ALTER TABLE "t" ADD COLUMN' in said
    fields = [{"name": "id", "type": "integer"}, {"name": "amount", "type": "number"}]
    widens = {"schema": {"fields": fields}, "sluice": {"wider_types": "widen"}}
    load(written("g2.csv", "id,amount\n3,99.95\n"), database, contract=widens)
    assert query(database, "SELECT amount, typeof(amount) FROM t ORDER BY id") == [
        (100.0, "real"), (250.0, "real"), (99.95, "real"),
    ]  # fmt: skip


def test_a_file_may_have_types_wider_than_those_of_the_table_if_its_values_fit(written: Any, database: Path) -> None:
    load(written("x.csv", "n\n1\n"), database)
    contract = {"schema": {"fields": [{"name": "n", "type": "number"}]}}
    load(written("z.csv", "n\n2\n3\n"), database, contract=contract)
    assert query(database, "SELECT n FROM t ORDER BY n") == [(1,), (2,), (3,)]
