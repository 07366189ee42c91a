"""What loading a file leaves in a database: all rows of it once, or nothing."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading import load_file
from sluice.loading.contracts.contract import parse_contract
from sluice.loading.errors import AmbiguousFile, RefusedFile
from sluice.loading.formats.delimited import blocks
from sluice.loading.reporting.report import LoadReport
from sluice.loading.targets import sqlite as sqlite_target
from sluice.loading.transfer import NeedsApproval


def load(path: Path, database: Path, table: str | None = "t", contract: Any = None, **options: Any) -> LoadReport:
    found = parse_contract(contract) if contract is not None else None
    return load_file(path, f"sqlite:///{database}", table=table, contract=found, **options)


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def tables(database: Path) -> set[str]:
    found = {name for (name,) in query(database, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    return found - {"sluice_loads", "sluice_tables"}


def refusal(path: Path, database: Path, *arguments: Any, **options: Any) -> str:
    with pytest.raises(RefusedFile) as caught:
        load(path, database, *arguments, **options)
    return str(caught.value)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "home" / "data.db"


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)  # another file, not one that was written on
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def orders(written: Any) -> Path:
    path: Path = written("orders.csv", "id,code,total,note\n1,007,1.5,\n2,012,2,x\n")
    return path


def test_values_arrive_with_their_types_and_empty_fields_as_null(orders: Path, database: Path) -> None:
    report = load(orders, database)
    assert query(database, "SELECT * FROM t") == [(1, "007", 1.5, None), (2, "012", 2.0, "x")]
    assert [(one["column"], one["type"], one["empty"]) for one in report.columns] == [
        ("id", "integer", 0),
        ("code", "text", 0),
        ("total", "real", 0),
        ("note", "text", 1),
    ]
    assert report.message == "2 rows of orders.csv loaded into the table t"
    assert report.made


def test_integers_of_64_bits_and_beyond_keep_every_digit(written: Any, database: Path) -> None:
    path = written("x.json", '[{"a": 9223372036854775807, "b": 92233720368547758070, "c": 12345678901234567.25}]')
    load(path, database)
    assert query(database, "SELECT * FROM t") == [(9223372036854775807, "92233720368547758070", "12345678901234567.25")]


def test_json_values_and_nested_ones_are_kept(written: Any, database: Path) -> None:
    path = written("x.jsonl", '{"ok": true, "tags": ["ü", 1], "n": "1"}\n{"ok": false, "n": 1.50}\n')
    load(path, database)
    assert query(database, "SELECT ok, tags, n FROM t") == [(1, '["ü", 1]', "1"), (0, None, "1.50")]


def test_the_same_version_of_a_file_is_loaded_once(orders: Path, database: Path) -> None:
    load(orders, database)
    report = load(orders, database)
    assert report.already
    assert report.message == "orders.csv is in the table t already: nothing to do"
    assert query(database, "SELECT count(*) FROM t") == [(2,)]


def test_the_same_version_goes_into_another_table_too(orders: Path, database: Path) -> None:
    load(orders, database, "one")
    assert not load(orders, database, "other").already


def test_a_file_that_arrives_anew_is_loaded_even_with_the_content_of_before(orders: Path, database: Path) -> None:
    load(orders, database)
    content = orders.read_bytes()
    (orders.parent / "new").write_bytes(content)
    (orders.parent / "new").replace(orders)
    assert not load(orders, database).already
    assert query(database, "SELECT count(*) FROM t") == [(4,)]


def test_a_moved_file_is_the_same_version(orders: Path, database: Path) -> None:
    load(orders, database)
    assert load(orders.rename(orders.with_name("moved.csv")), database).already


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


def test_a_file_with_a_header_alone_makes_no_table_and_says_so(written: Any, database: Path) -> None:
    path = written("head.csv", "id,name\n")
    report = load(path, database)
    assert report.message == (
        "head.csv has no rows: nothing was loaded into t; the table is made with the first rows, which show the types"
    )
    assert tables(database) == set()
    fields = [{"name": "id", "type": "integer"}, {"name": "name", "type": "string"}]
    assert load(path, database, contract={"schema": {"fields": fields}}).made
    assert tables(database) == {"t"}
    load(written("real.csv", "id,name\n1,Ann\n"), database)
    assert "lacks the columns ['x']" in refusal(written("head2.csv", "id,x\n"), database)


@pytest.mark.parametrize("content", ["", "[]", "{}", "[{}]"])
def test_a_document_without_values_makes_no_table_and_says_so(written: Any, database: Path, content: str) -> None:
    report = load(written("x.json", content), database)
    assert report.message.startswith("x.json has no rows: nothing was loaded into t")
    assert tables(database) == set()


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


def test_nothing_stays_of_a_file_that_changes_while_it_is_loaded(
    written: Any, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written("x.csv", "a,b\n" + "1,2\n" * 3000)

    def change(share: float, _rows: int) -> None:
        if share > 0.5:
            os.utime(path, ns=(0, 0))

    assert "changed while it was read" in refusal(path, database, progress=change)
    assert tables(database) == set()


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


@pytest.mark.parametrize("type_", ["datetime", "date", "time", "boolean", "integer"])
def test_a_number_is_no_time_and_no_truth_value_and_a_truth_value_is_no_number(
    written: Any, database: Path, type_: str
) -> None:
    contract = {"schema": {"fields": [{"name": "at", "type": type_}]}}
    value = "true" if type_ == "integer" else "1700000000"
    message = refusal(written("x.json", f'[{{"at": {value}}}]'), database, contract=contract)
    assert f"x.json, line 1, column 'at': '{value}' is" in message


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


def test_years_beyond_those_of_python_are_loaded_and_refused_as_others_are(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table(
            {"d": pa.array([3_000_000] * 2, pa.date32()), "t": pa.array([2**59], pa.timestamp("us")).take([0, 0])}
        ),
        path,
    )
    report = load(path, database)
    assert query(database, "SELECT DISTINCT d, t FROM t") == [("10183-09-21", "20237-04-25 10:45:03.423488")]
    assert report.columns[0]["top"] == {"10183-09-21": 2}
    contract = {"schema": {"fields": [{"name": "d", "type": "integer"}, {"name": "t"}]}}
    assert "column 'd': '10183-09-21' is not an integer" in refusal(path, database, "other", contract=contract)


def test_a_contract_that_cannot_be_is_refused_with_the_field(written: Any, database: Path) -> None:
    contract = {"schema": {"fields": [{"name": "id", "type": "integer", "constraints": {"enum": ["1", "a"]}}]}}
    message = refusal(written("x.csv", "id\n1\n"), database, contract=contract)
    assert message.startswith("x.csv: the contract's field 'id' cannot be: ['1', 'a'] is not an integer")


def test_a_contract_that_drops_every_column_is_refused(written: Any, database: Path) -> None:
    contract = {"schema": {"fields": [{"name": "id", "mask": {"kind": "drop"}}]}}
    assert "the contract drops all of its columns" in refusal(written("x.csv", "id\na\n"), database, contract=contract)


def test_a_batch_without_rows_takes_any_type(written: Any, database: Path) -> None:
    fields = [{"name": "o", "type": "object"}, {"name": "at", "type": "time"}]
    contract = {"schema": {"fields": fields}, "sluice": {"on_bad_rows": "quarantine"}}
    assert "no row is left to be loaded" in refusal(written("x.csv", "o,at\n1,2,3\n"), database, contract=contract)


def test_an_enumeration_is_held_against_values_of_any_type(written: Any, database: Path) -> None:
    contract = {"schema": {"fields": [{"name": "v", "constraints": {"enum": ["1", "a"]}}]}}
    assert "'2' is none of 1, a" in refusal(written("x.json", '[{"v": 1}, {"v": 2}]'), database, contract=contract)


def test_a_column_is_widened_to_text_also_where_text_could_become_its_type(written: Any, database: Path) -> None:
    database.parent.mkdir()
    query(database, "CREATE TABLE t (at TIMESTAMP)")
    contract = {"sluice": {"table": "t", "wider_types": "widen"}}
    assert load(written("x.csv", "at\n1.5\n2.5\n"), database, contract=contract).rows == 2
    assert query(database, "SELECT at FROM t") == [("1.5",), ("2.5",)]


def test_a_nul_character_is_refused_with_its_place(written: Any, database: Path) -> None:
    message = refusal(written("x.csv", "name\nfine\nnot\0fine\n"), database)
    assert message == "x.csv: line 3, column 'name': the value holds a NUL character, which databases refuse"


@pytest.mark.parametrize(
    "hostile", ['a"; DROP TABLE t; --', "a'b", "select", "a%(b)s", "a:b", "a(b)", "[a]", "a.b", "é"]
)
def test_names_of_tables_and_columns_are_only_ever_names(written: Any, database: Path, hostile: str) -> None:
    path = written("x.json", f'[{{{__import__("json").dumps(hostile)}: 1, "b": 2}}]')
    load(path, database, hostile)
    quoted = '"' + hostile.replace('"', '""') + '"'
    assert query(database, f"SELECT {quoted}, b FROM {quoted}") == [(1, 2)]


def test_loads_into_one_sqlite_file_wait_for_each_other(written: Any, database: Path) -> None:
    paths = [written(f"{n}.csv", "n,v\n" + f"{n},1\n" * 500) for n in range(8)]
    start = threading.Barrier(len(paths))

    def run(path: Path) -> None:
        start.wait()
        load(path, database)

    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(run, paths))
    assert query(database, "SELECT count(*), count(DISTINCT n) FROM t") == [(4000, 8)]


def test_somebody_who_reads_does_not_hold_up_a_load(
    orders: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(orders, database, "one")
    monkeypatch.setattr(sqlite_target, "WAIT_SECONDS", 1)
    reader = sqlite3.connect(database, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM one").fetchone() == (2,)
    assert not load(orders, database, "other").already
    reader.close()


def test_one_version_loaded_by_two_at_once_is_there_once(orders: Path, database: Path) -> None:
    start = threading.Barrier(4)

    def run(_: int) -> bool:
        start.wait()
        return load(orders, database).already

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(run, range(4)))
    assert answers.count(False) == 1
    assert query(database, "SELECT count(*) FROM t") == [(2,)]


def test_a_parquet_file_is_loaded(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"n": list(range(95)), "blob": [b"\x00"] * 95}), path, row_group_size=10)
    load(path, database)
    assert query(database, "SELECT count(*), sum(n), max(blob) FROM t") == [(95, 95 * 47, b"\x00")]


@pytest.mark.parametrize("name", ["order_reservations.csv", "Order Reservations.csv", "ORDER-RESERVATIONS.csv"])
def test_a_files_name_does_not_put_rows_into_another_flows_table(written: Any, database: Path, name: str) -> None:
    path = written(name, "order_id,amount,status,changed_at\nforged-1,1,confirmed,2026-01-01\n")
    first = written("first.csv", "order_id,amount,status,changed_at\nx,1,confirmed,2026-01-01\n")
    load(first, database, "order_reservations", flow="order-approval")
    assert "belongs to the flow order-approval" in refusal(path, database, None)
    assert query(database, "SELECT order_id FROM order_reservations") == [("x",)]


@pytest.mark.parametrize(
    ("file", "table"),
    [("Orders 2026-03.csv.gz", "orders_2026_03"), ("weather.CSV", "weather"), ("a.b.jsonl", "a_b"), ("x.zip", "x")],
)
def test_the_table_is_named_after_the_file(written: Any, database: Path, file: str, table: str) -> None:
    text = b'{"id": "x"}\n' if ".jsonl" in file else b"id\nx\n"
    path = written(file, gzip.compress(text) if file.endswith(".gz") else text)
    if file.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inner.csv", text)
    assert load(path, database, None).table == table


def test_a_link_in_the_place_of_a_file_is_not_loaded(written: Any, tmp_path: Path, database: Path) -> None:
    (tmp_path / "orders.csv").symlink_to(written("secret", "client,key\na,b\n"))
    assert "symbolic link" in refusal(tmp_path / "orders.csv", database)


def test_a_file_that_is_gone_says_so(tmp_path: Path, database: Path) -> None:
    assert "cannot be read: No such file or directory" in refusal(tmp_path / "gone.csv", database)


def test_a_name_that_is_not_utf_8_can_be_shown(tmp_path: Path, database: Path) -> None:
    path = tmp_path / b"caf\xe9.csv".decode(errors="surrogateescape")
    path.write_text("a,b\n1\n")
    message = refusal(path, database)
    assert message.encode()
    assert message == "caf\ufffd.csv, line 2: 1 field where the header names 2: column 'b' has none"


def test_an_archive_is_loaded_as_a_whole_or_not_at_all(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "month.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.csv", "id,name\n1,Ann\n2,Bob\n")
        archive.writestr("2.csv", "name,id\nCyd,3\n")
    assert load(path, database, None).message == "3 rows of month.zip loaded into the table month"
    assert query(database, "SELECT * FROM month") == [(1, "Ann"), (2, "Bob"), (3, "Cyd")]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.csv", "id,name\n4,Dan\n")
        archive.writestr("2.csv", "id,name\n5\n")
    assert "month.zip/2.csv, line 2: 1 field" in refusal(path, database, None)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.csv", "id,name\n4,Dan\n")
        archive.writestr("2.csv", "id,nom\n5,x\n")
    assert "they must have the same columns" in refusal(path, database, None)
    assert query(database, "SELECT count(*) FROM month") == [(3,)]


FIELDS = [
    {"name": "id", "type": "integer", "constraints": {"required": True, "unique": True}},
    {"name": "amount", "type": "number", "decimalChar": ",", "constraints": {"minimum": 0, "maximum": 1000}},
    {"name": "day", "type": "date", "format": "%d.%m.%Y"},
    {"name": "kind", "type": "string", "constraints": {"enum": ["a", "b"], "pattern": "[a-z]"}},
]
CONTRACT = {"dialect": {"delimiter": ";"}, "schema": {"fields": FIELDS, "missingValues": ["", "NULL"]}}
TEXT = """id;amount;day;kind
1;1,50;31.12.2025;a
2;NULL;29.02.2024;b
"""
BAD = """3;-1;01.01.2025;a
x;1;01.01.2025;a
4;1;30.02.2025;a
5;1;01.01.2025;c
1;1;01.01.2025;a
6;1;01.01.2025
;1;01.01.2025;a
"""


def contract(**rules: Any) -> dict[str, Any]:
    return {**CONTRACT, "sluice": rules}


def test_a_contract_says_what_values_are(written: Any, database: Path) -> None:
    load(written("x.csv", TEXT), database, contract=contract())
    assert query(database, "SELECT * FROM t") == [(1, 1.5, "2025-12-31", "a"), (2, None, "2024-02-29", "b")]


def test_bad_rows_are_refused_with_the_first_and_their_number(written: Any, database: Path) -> None:
    message = refusal(written("x.csv", TEXT + BAD), database, contract=contract())
    assert message == "x.csv, line 4, column 'amount': '-1' is below 0.0 (and 6 more of 9 rows)"
    assert not database.exists() or tables(database) == set()


def test_bad_rows_are_put_aside_mended_and_loaded(written: Any, database: Path, tmp_path: Path) -> None:
    report = load(written("x.csv", TEXT + BAD), database, contract=contract(on_bad_rows="quarantine"))
    assert query(database, "SELECT id FROM t") == [(1,), (2,)]
    assert report.rejected == tmp_path / "rejected" / "x.csv.rejected.csv"
    assert report.message == "2 rows of x.csv loaded into the table t, 7 bad rows put into x.csv.rejected.csv"
    assert report.rejected is not None
    text = report.rejected.read_text()
    assert text.splitlines() == [
        "sluice_place,sluice_column,sluice_value,sluice_reason,id,amount,day,kind",
        "x.csv:4,amount,-1,is below 0.0,3,-1,01.01.2025,a",
        "x.csv:5,id,x,is not an integer of 64 bits,x,1,01.01.2025,a",
        "x.csv:6,day,30.02.2025,does not fit the format '%d.%m.%Y',4,1,30.02.2025,a",
        'x.csv:7,kind,c,"is none of a, b",5,1,01.01.2025,c',
        "x.csv:8,,,\"the contract says `unique`, and an earlier row has the same 'id'\",1,1,01.01.2025,a",
        'x.csv:10,id,,"is empty, and the contract requires a value",,1,01.01.2025,a',
        "x.csv:9,,,3 fields where the header names 4: column 'kind' has none,6,1,01.01.2025",
    ]
    again = written("x.csv.rejected.csv", text)
    assert "line 2, column 'amount'" in refusal(again, database, contract=contract())
    mended = text.replace(",3,-1,", ",3,1,").replace("30.02.2025,a", "28.02.2025,a")
    report = load(written("x.csv.rejected.csv", mended), database, contract=contract(on_bad_rows="quarantine"))
    assert query(database, "SELECT id FROM t") == [(1,), (2,), (3,), (4,), (1,)]
    assert report.bad is not None
    assert report.bad.count == 4


def test_bad_rows_of_another_file_of_the_same_name_are_kept_beside(written: Any, database: Path) -> None:
    rules = contract(on_bad_rows="quarantine")
    first = load(written("x.csv", TEXT + BAD), database, contract=rules).rejected
    second = load(written("x.csv", TEXT + BAD + "y;1;01.01.2025;a\n"), database, contract=rules).rejected
    assert first is not None
    assert second is not None
    assert (first.name, second.name[:6], second.name[-13:]) == ("x.csv.rejected.csv", "x.csv.", ".rejected.csv")
    assert len(second.name) == len(first.name) + 9
    again = written(second.name, second.read_text())
    assert "line 2, column 'amount'" in refusal(again, database, None, contract=contract())


def test_nothing_is_put_aside_of_a_file_that_is_not_loaded(written: Any, database: Path, tmp_path: Path) -> None:
    rules = contract(on_bad_rows="quarantine")
    assert "no row is left to be loaded" in refusal(
        written("x.csv", "id;amount;day;kind\nx;1;;a\ny;1;;a\n"), database, contract=rules
    )
    database.parent.mkdir(exist_ok=True)
    query(database, "CREATE TABLE t (id INTEGER CHECK (id <> 2), amount REAL, day DATE, kind TEXT)")
    assert "CHECK" in refusal(written("x.csv", TEXT + BAD), database, contract=rules)
    assert list((tmp_path / "rejected").iterdir()) == []


def test_more_bad_rows_than_allowed_are_loaded_around_only_where_somebody_approves(
    written: Any, database: Path
) -> None:
    path = written("x.csv", TEXT + BAD)
    rules = contract(on_bad_rows="approve", max_bad_share=0.5)
    with pytest.raises(NeedsApproval, match=r"77.8% of the rows are bad, and the contract allows 50.0%") as caught:
        load(path, database, contract=rules)
    assert caught.value.bad is not None
    assert (caught.value.bad.count, caught.value.bad.rows) == (7, 9)
    assert caught.value.bad.examples[0] == {
        "place": "x.csv, line 4",
        "column": "amount",
        "value": "-1",
        "reason": "is below 0.0",
    }
    assert load(path, database, contract=rules, approved=True).rows == 2
    few = contract(on_bad_rows="approve", max_bad_share=0.8)
    assert load(path, database, "u", contract=few).rows == 2


def test_a_value_that_a_tables_own_type_does_not_hold_is_a_bad_row(written: Any, database: Path) -> None:
    database.parent.mkdir()
    query(database, "CREATE TABLE t (id INTEGER, at DATE)")
    path = written("x.csv", "id,at\n1,2025-12-31\n2,soon\n")
    said = "x.csv, line 3, column 'at': 'soon' is not a date like 2026-12-31, as that column of the table is"
    assert refusal(path, database) == said


def test_columns_and_contract_must_agree(written: Any, database: Path) -> None:
    fields = {"schema": {"fields": [{"name": "Id", "type": "integer"}, {"name": "name", "type": "string"}]}}
    assert "lacks the columns ['name'] of the contract" in refusal(
        written("x.csv", "id,other\n1,2\n"), database, contract=fields
    )
    path = written("x.csv", "id,name,other\n1,Ann,2\n")
    assert "has the columns ['other'], which the contract does not name" in refusal(path, database, contract=fields)
    load(path, database, contract={**fields, "sluice": {"new_columns": "add"}})
    assert query(database, "SELECT Id, name, other FROM t") == [(1, "Ann", 2)]


@pytest.mark.parametrize(
    ("field", "good", "stored", "wrong"),
    [
        ({"type": "integer"}, "+007", 7, "1.0"),
        ({"type": "integer", "groupChar": "."}, "1.234", 1234, "x"),
        ({"type": "integer", "bareNumber": False}, "EUR 12 %", 12, "EUR"),
        ({"type": "number"}, ".5e1", 5.0, "12345678901234567.89"),
        ({"type": "number", "decimalChar": ",", "groupChar": "."}, "1.234,5", 1234.5, "1,2,3"),
        ({"type": "number", "decimalChar": ","}, "1,5", 1.5, "1.5"),
        ({"type": "number", "decimalChar": ",", "groupChar": "."}, "12.345.678,5", 12345678.5, "3.9"),
        ({"type": "number", "groupChar": ","}, "1,00,000", 100000.0, "1,5"),
        ({"type": "number", "decimalChar": ",", "groupChar": "."}, "-1.234", -1234.0, "0.123"),
        *(
            ({"type": "number", "bareNumber": False}, good, stored, wrong)
            for good, stored, wrong in (
                ("5 m²", 5.0, "5-"),
                ("$-5", -5.0, "(5)"),
                ("5 €", 5.0, "\u22125"),
                ("5%", 5.0, "5½"),
                ("US$ 5", 5.0, "5万"),
            )
        ),
        ({"type": "boolean"}, "TRUE", 1, "yes"),
        ({"type": "boolean", "trueValues": ["ja"], "falseValues": ["nein"]}, "nein", 0, "true"),
        ({"type": "date"}, "2024-02-29", "2024-02-29", "2023-02-29"),
        ({"type": "date", "format": "%d/%m/%y"}, "01/02/24", "2024-02-01", "31/02/24"),
        ({"type": "datetime"}, "2024-02-29T10:00:00", "2024-02-29 10:00:00.000000", "2024-02-29T25:00:00"),
        ({"type": "datetime", "format": "%d.%m.%Y %H:%M"}, "1.2.2024 9:05", "2024-02-01 09:05:00.000000", "1.2.2024"),
        ({"type": "time"}, "10:00:00", "10:00:00.000000", "10:00:60"),
        ({"type": "year"}, "2024", 2024, "24"),
        ({"type": "object"}, '{"a": 1}', '{"a": 1}', "[1]"),
        ({"type": "array"}, "[1.5]", "[1.5]", "[1"),
        ({"type": "array"}, "[null]", "[null]", "[NaN]"),
        ({"type": "string", "format": "email"}, "a@b.c", "a@b.c", "a b"),
        ({"type": "string"}, "007", "007", None),
        ({"type": "string", "constraints": {"minLength": 2, "maxLength": 3}}, "äöü", "äöü", "ä"),
        ({"type": "string", "constraints": {"pattern": "a+"}}, "aa", "aa", "aab"),
        ({"type": "date", "constraints": {"minimum": "2024-01-01"}}, "2024-01-01", "2024-01-01", "2023-12-31"),
        ({"type": "integer", "constraints": {"enum": [1, 2]}}, "2", 2, "3"),
        ({"type": "integer", "constraints": {"exclusiveMaximum": 5}}, "4", 4, "5"),
    ],
)
def test_each_type_of_a_contract(  # noqa: PLR0917 - pytest hands fixtures in by position
    written: Any, database: Path, field: dict[str, Any], good: str, stored: Any, wrong: str | None
) -> None:
    said = {"dialect": {"delimiter": "|"}, "schema": {"fields": [{"name": "x", **field}, {"name": "n"}]}}
    quoted = '"' + good.replace('"', '""') + '"'
    load(written("good.csv", f"x|n\n{quoted}|1\n|2\n"), database, contract=said)
    assert query(database, "SELECT x FROM t") == [(stored,), (None,)]
    if wrong is not None:
        message = refusal(written("bad.csv", f"x|n\n{wrong}|1\n{quoted}|2\n"), database, contract=said)
        assert message.startswith(f"bad.csv, line 2, column 'x': {wrong!r} ")


def test_times_with_an_offset_are_moments(written: Any, database: Path) -> None:
    said = {"schema": {"fields": [{"name": "at", "type": "datetime"}, {"name": "n"}]}}
    load(written("x.csv", "at,n\n2024-02-29T10:00:00+02:00,1\n"), database, contract=said)
    assert query(database, "SELECT at FROM t") == [("2024-02-29 08:00:00.000000Z",)]
    assert "line 3" in refusal(
        written("y.csv", "at,n\n2024-02-29T10:00:00Z,1\n2024-02-29T10:00:00,2\n"), database, contract=said
    )
    load(written("z.csv", "at,n\n2024-02-29T10:00:00-02:00,1\n"), database, contract=said)
    assert query(database, "SELECT at FROM t")[1:] == [("2024-02-29 12:00:00.000000Z",)]
    message = refusal(written("w.csv", "at,n\n2024-02-29T10:00:00,1\n"), database, contract=said)
    assert "is not a time like 2026-12-31T23:59:59+01:00, as that column of the table is" in message


def test_progress_goes_from_none_to_all(written: Any, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 10_000)
    told: list[tuple[float, int]] = []
    load(written("x.csv", "a,b\n" + "1,2\n" * 9_000), database, progress=lambda *one: told.append(one))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert len(told) > 2
    assert told[-1] == (1.0, 9_000)


@pytest.mark.parametrize("name", ["x.csv", "x~2.csv", "x~10.csv", "x~2~3.csv", "X~2.CSV"])
def test_a_file_that_was_put_away_under_another_name_goes_to_the_table_of_its_own(
    written: Any, database: Path, name: str
) -> None:
    assert load(written(name, "id\n1\n"), database, None).table == "x"


@pytest.mark.parametrize("name", ["x~1.csv", "x~2b.csv", "x~02.csv"])
def test_other_names_with_a_tilde_are_their_own(written: Any, database: Path, name: str) -> None:
    assert load(written(name, "id\n1\n"), database, None).table != "x"


@pytest.mark.parametrize(
    ("limit", "value"), [("rows", 99), ("columns", 1), ("cells", 199), ("line_bytes", 5), ("unpacked_bytes", 100)]
)
def test_each_limit_says_its_name_its_value_and_how_to_raise_it(
    written: Any, database: Path, limit: str, value: int
) -> None:
    path = written("orders.csv", "one,two\n" + "1,2\n" * 100)
    with pytest.raises(OverBudget) as caught:
        load(path, database, budget=Budget.model_validate({limit: value}))
    message = str(caught.value)
    assert "orders.csv" in message
    assert f"the budget {limit} = {value} is reached" in message
    assert f'{{"{limit}": {2 * value}}}' in message
    assert "parameter `budget`" in message
    assert load(path, database).rows == 100


def test_large_values_are_loaded_a_few_at_a_time(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "x.parquet"
    values = [f"{number:02}" + "y" * 5_000_000 for number in range(12)]
    pq.write_table(pa.table({"s": values}), path, compression="none")
    load(path, database, budget=Budget(expansion_ratio=1000))
    assert query(database, "SELECT count(*), min(length(s)), max(substr(s, 1, 2)) FROM t") == [(12, 5_000_002, "11")]


def test_the_same_rows_come_out_of_every_format(written: Any, database: Path, tmp_path: Path) -> None:
    expected = [{"city": "Oslo", "n": 1}, {"city": "Rome", "n": None}]
    as_json = json.dumps(expected)
    pq.write_table(pa.Table.from_pylist(expected), tmp_path / "x.parquet")
    written("x.json", as_json)
    written("x.json.gz", gzip.compress(as_json.encode()))
    written("x.jsonl", "\n\n".join(json.dumps(row) for row in expected))
    written("X.CSV.GZ", gzip.compress(b"city,n\nOslo,1\nRome,\n"))
    for number, name in enumerate(["x.parquet", "x.json", "x.json.gz", "x.jsonl", "X.CSV.GZ"]):
        load(tmp_path / name, database, f"t{number}")
        assert query(database, f"SELECT * FROM t{number}") == [("Oslo", 1), ("Rome", None)]


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


TYPED = {
    "schema": {"fields": [{"name": "id", "type": "integer"}, {"name": "name", "type": "string"}], "primaryKey": "id"}
}


def test_a_file_whose_types_a_contract_names_is_read_once(
    written: Any, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.loading.load.inspect", None)
    told: list[float] = []
    path = written("x.csv", "id,name\n" + "".join(f"{n},a\n" for n in range(50_000)))
    report = load(path, database, contract=TYPED, progress=lambda share, _: told.append(share))
    assert report.rows == 50_000
    assert report.made
    assert report.columns[1]["top"] == {"a": 50_000}
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize(("offset", "type_"), [("", "timestamp[us]"), ("+02:00", "timestamp[us, tz=UTC]")])
def test_the_first_rows_say_whether_times_are_moments_and_the_file_is_read_once(
    written: Any, database: Path, monkeypatch: pytest.MonkeyPatch, offset: str, type_: str
) -> None:
    contract = {"schema": {"fields": [{"name": "at", "type": "datetime"}, {"name": "n", "type": "integer"}]}}
    assert load(written("none.csv", "at,n\n,1\n"), database, "none", contract=contract).rows == 1  # no time says it
    monkeypatch.setattr("sluice.loading.load.inspect", None)
    rows = f",0\n2024-05-06T09:08:09{offset},1\n" * 3
    report = load(written("x.csv", f"at,n\n{rows}"), database, contract=contract)
    assert (report.rows, report.columns[0]["type"], report.columns[0]["empty"]) == (6, type_, 3)
    other = "" if offset else "Z"
    message = refusal(written("z.csv", f"at,n\n{rows}2024-05-06T09:08:09{other},1\n"), database, contract=contract)
    assert "z.csv, line 8, column 'at'" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "id,name\n1,a\nx,b\n3,c\ny,d\n",
            "x.csv, line 3, column 'id': 'x' is not an integer of 64 bits (and 1 more of 4 rows)",
        ),
        ("id,name\n1,a\n2,b\n1,c\n", "x.csv, line 4: an earlier row has the same key (id)"),
        ("id,name\n1,a\n,b\n", "x.csv, line 3, column 'id': is empty, and the contract requires a value"),
    ],
)
def test_nothing_stays_of_a_file_that_turns_out_bad_while_it_is_loaded(
    written: Any, database: Path, content: str, said: str
) -> None:
    assert refusal(written("x.csv", content), database, contract=TYPED) == said
    assert tables(database) == set()


def test_a_file_may_have_types_wider_than_those_of_the_table_if_its_values_fit(written: Any, database: Path) -> None:
    load(written("x.csv", "n\n1\n"), database)
    contract = {"schema": {"fields": [{"name": "n", "type": "number"}]}}
    load(written("z.csv", "n\n2\n3\n"), database, contract=contract)
    assert query(database, "SELECT n FROM t ORDER BY n") == [(1,), (2,), (3,)]
