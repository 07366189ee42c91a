"""What every target promises, run over each of them: subclass `TargetSuite` with the fixtures ``url`` and ``query``."""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest

from sluice.errors import TableRefused
from sluice.loading import load_file
from sluice.loading.contracts.contract import parse_contract
from sluice.loading.errors import AlreadyLoaded, RefusedFile, TargetFailed
from sluice.loading.targets import Destination, FileVersion, open_target

Rows = list[tuple[Any, ...]]
Query = Callable[[str], Rows]

PEOPLE: Final = {"id": [1, 2], "name": ["Ann", "Bo"]}
AT: Final = dt.datetime(2026, 3, 1, 8, 30, 15, 250_000)  # noqa: DTZ001 - a time without a zone is a case of its own


def version(number: int | str) -> FileVersion:
    return FileVersion(f"f{number}.csv", f"1-2-{number}", f"{number}")


def to(table: str = "t", **others: Any) -> Destination:
    return Destination(table=table, flow="test", **others)


def put(
    url: str,
    where: Destination,
    columns: Mapping[str, Any] | pa.RecordBatch,
    number: int | str = 1,
    *,
    lines: list[int] | None = None,
    fails: bool = False,
) -> list[str]:
    """Load the rows as a file does, cast to what the plan wants; answers the notes."""
    rows = columns if isinstance(columns, pa.RecordBatch) else pa.RecordBatch.from_pydict(dict(columns))
    with open_target(url) as target:
        plan = target.plan(where, rows.schema)
        cast = pa.record_batch(
            [values.cast(field.type) for values, field in zip(rows.columns, plan.schema, strict=True)],
            schema=plan.schema,
        )
        with target.load(where, plan, version(number)) as load:
            if cast.num_rows:
                load.write(cast, (lambda: pa.array(lines, pa.int64())) if lines else None)
            if fails:
                raise ZeroDivisionError
        assert load.rows == cast.num_rows
        return load.notes


def load_known_keys(url: str, folder: Path, on_bad_rows: str = "quarantine") -> list[list[str]]:
    """Load two files with ids 1, 2 and 2, 1, 3 into `ids_`, whose key is ``id``, and two into `pairs`, whose key is
    a text and a day; answers the bad rows of the second files.
    """
    bad = []
    for table, key, types, contents in (
        ("ids_", "id", ("integer", "string"), ("id,kind\n1,a\n2,b\n", "id,kind\n2,x\n1,y\n3,z\nq,z\n")),
        ("pairs", ["name", "day"], ("string", "date"), (
            "name,day,n\nAnn,2026-01-01,1\nann,2026-01-01,2\n", "name,day,n\nAnn,2026-01-02,3\nann,2026-01-01,4\n",
        )),
    ):  # fmt: skip
        names = contents[0].partition("\n")[0].split(",")
        fields = [{"name": name, "type": type_} for name, type_ in zip(names, (*types, "integer"), strict=False)]
        rules = {"table": table, "on_bad_rows": on_bad_rows, "max_bad_share": 0.9}
        contract = parse_contract({"schema": {"fields": fields, "primaryKey": key}, "sluice": rules})
        for number, content in enumerate(contents, start=1):
            path = folder / f"{table}-{number}.csv"
            path.write_text(content)
            report = load_file(path, url, contract=contract)
        assert report.rejected is not None
        assert report.bad is not None
        with report.rejected.open(newline="") as file:
            bad.append([f"{row[0]} {row[1]} {row[2]} {row[3]}" for row in csv.reader(file)][1:])
        assert report.bad.count == len(bad[-1])
    return bad


KNOWN_KEYS: Final = (
    [
        r"ids_-2.csv:2 id 2 is a key \(id\) that the table ids_ has already, from ids_-1.csv, loaded at 20\S*",
        r"ids_-2.csv:3 id 1 is a key \(id\) that the table ids_ has already, from ids_-1.csv, loaded at 20\S*",
        r"ids_-2.csv:5 id q is not an integer of 64 bits",
    ],
    [r"pairs-2.csv:3 name ann begins a key \(name, day\) that the table pairs has already, from pairs-1.csv, .*"],
)
"""What `load_known_keys` leaves in the files of bad rows, as patterns."""


def check_bad_rows(found: list[list[str]]) -> None:
    """The bad rows are those of `KNOWN_KEYS`."""
    for rows, wanted in zip(found, KNOWN_KEYS, strict=True):
        assert len(rows) == len(wanted)
        assert [row for row, pattern in zip(rows, wanted, strict=True) if not re.fullmatch(pattern, row)] == []


class TargetSuite:
    """Table names are the tests' own: a database may be shared by all of them."""

    def test_values_arrive_with_their_types(self, url: str, query: Query) -> None:
        put(
            url,
            to("typed"),
            {"i": [1, None], "r": [1.5, None], "s": ["é", ""], "b": [True, None], "y": [b"\xff", None]},
        )
        assert query("SELECT i, r, s, y FROM typed ORDER BY s DESC") == [(1, 1.5, "é", b"\xff"), (None, None, "", None)]
        assert [bool(one) for (one,) in query("SELECT b FROM typed WHERE i = 1")] == [True]

    def test_dates_times_and_decimals_arrive(self, url: str, query: Query) -> None:
        put(url, to("dated"), pa.record_batch({
            "d": pa.array([AT.date()]), "t": pa.array([AT.time()], pa.time64("us")), "ts": pa.array([AT]),
            "utc": pa.array([AT.replace(tzinfo=dt.UTC)], pa.timestamp("us", "UTC")),
            "n": pa.array([Decimal("12345678901234567.89")], pa.decimal128(20, 2)),
        }))  # fmt: skip
        ((day, time, at, utc, number),) = query("SELECT d, t, ts, utc, n FROM dated")
        assert str(day) == "2026-03-01"
        assert str(time).removeprefix("0") == "8:30:15.250000"
        assert str(at) == "2026-03-01 08:30:15.250000"
        assert str(utc)[:26] == "2026-03-01 08:30:15.250000"
        assert str(number) == "12345678901234567.89"

    def test_a_later_file_finds_the_types_of_the_table(self, url: str, query: Query) -> None:
        types = pa.schema(
            [("i", pa.int64()), ("r", pa.float64()), ("s", pa.string()), ("b", pa.bool_()), ("d", pa.date32())]
        )
        put(url, to("known"), pa.RecordBatch.from_pylist([dict.fromkeys(types.names)], types))
        found = pa.schema([(name.upper(), pa.null()) for name in types.names])
        with open_target(url) as target:
            assert target.plan(to("known"), found).schema == types

    def test_one_version_of_a_file_is_loaded_once_into_a_table(self, url: str, query: Query) -> None:
        put(url, to("once"), PEOPLE)
        with pytest.raises(AlreadyLoaded):
            put(url, to("once"), PEOPLE)
        put(url, to("once_other"), PEOPLE)
        put(url, to("once"), PEOPLE, 2)
        assert query("SELECT count(*) FROM once") == [(4,)]
        with open_target(url) as target:
            assert target.is_loaded(to("once"), version(1))
            assert not target.is_loaded(to("once"), version(3))

    def test_the_last_loads_are_remembered_with_what_became_of_their_rows(self, url: str, query: Query) -> None:
        put(url, to("past"), PEOPLE)
        put(url, to("past"), {"id": [3], "name": [None]}, 2)
        put(url, to("past_other"), PEOPLE, 3)
        with open_target(url) as target:
            assert [(one.file, one.quality.rows) for one in target.history("past", 5)] == [("f1.csv", 2), ("f2.csv", 1)]
            assert [one.file for one in target.history("past", 1)] == ["f2.csv"]
            assert target.history("nowhere", 5) == []

    def test_a_table_that_was_dropped_is_not_loaded_already(self, url: str, query: Query) -> None:
        put(url, to("gone"), PEOPLE)
        put(url, to("stays"), PEOPLE)
        query("DROP TABLE gone")
        with open_target(url) as target:
            assert not target.is_loaded(to("gone"), version(1))
        put(url, to("gone"), PEOPLE, 2)
        put(url, to("gone"), PEOPLE, 1)
        assert query("SELECT count(*) FROM gone") == [(4,)]
        with pytest.raises(AlreadyLoaded):
            put(url, to("stays"), PEOPLE)

    def test_nothing_stays_of_a_load_that_fails(self, url: str, query: Query) -> None:
        put(url, to("kept"), PEOPLE)
        for where in (to("kept"), to("kept", mode="replace"), to("kept", mode="upsert", key=("id",)), to("never")):
            with pytest.raises(ZeroDivisionError):
                put(url, where, {"id": [1, 5], "name": ["x", "y"]}, 2, fails=True)
        assert query("SELECT * FROM kept ORDER BY id") == [(1, "Ann"), (2, "Bo")]
        put(url, to("never"), PEOPLE, 2)
        put(url, to("kept"), PEOPLE, 2)
        assert query("SELECT count(*) FROM kept") == [(4,)]

    def test_replace_leaves_only_the_rows_of_the_file(self, url: str, query: Query) -> None:
        put(url, to("replaced", mode="replace", key=("id",)), PEOPLE)
        put(url, to("replaced", mode="replace", key=("id",)), {"ID": [2, 3], "name": ["Bob", "Cy"]}, 2)
        assert query("SELECT * FROM replaced ORDER BY id") == [(2, "Bob"), (3, "Cy")]

    def test_a_file_without_rows_does_not_empty_a_table(self, url: str, query: Query) -> None:
        put(url, to("not_empty", mode="replace"), PEOPLE)
        empty = pa.RecordBatch.from_pydict(
            {"id": [], "name": []}, pa.schema([("id", pa.int64()), ("name", pa.string())])
        )
        with pytest.raises(RefusedFile, match="has no rows, and would leave the table not_empty empty"):
            put(url, to("not_empty", mode="replace"), empty, 2)
        assert query("SELECT count(*) FROM not_empty") == [(2,)]

    def test_upsert_changes_what_is_there_and_adds_the_rest(self, url: str, query: Query) -> None:
        where = to("merged", mode="upsert", key=("id", "kind"))
        put(url, where, {"id": [1, 2], "kind": ["a", "b"], "v": [1.0, 2.0], "w": ["x", "y"]})
        put(url, where, {"kind": ["b", "A"], "id": [2, 1], "v": [5.0, None]}, 2)
        assert query("SELECT id, kind, v, w FROM merged ORDER BY id, kind DESC") == [
            (1, "a", 1.0, "x"), (1, "A", None, None), (2, "b", 5.0, "y"),
        ]  # fmt: skip

    def test_a_key_that_comes_twice_or_is_empty_is_refused(self, url: str, query: Query) -> None:
        where = to("keyed", mode="upsert", key=("id",))
        put(url, where, PEOPLE)
        with pytest.raises(RefusedFile, match=r"two rows have the same key .*: 7"):
            put(url, where, {"id": [7, 8, 7], "name": ["a", "b", "c"]}, 2)
        with pytest.raises(RefusedFile, match="row 2, column 'id': the key has no value"):
            put(url, where, {"id": [7, None], "name": ["a", "b"]}, 3)
        with pytest.raises(RefusedFile, match=r"\['id'\] are the key of keyed, and the file lacks them"):
            put(url, where, {"name": ["a"]}, 4)
        assert query("SELECT count(*) FROM keyed") == [(2,)]

    def test_a_table_with_a_key_refuses_a_second_row_of_it_and_names_the_place(self, url: str, query: Query) -> None:
        put(url, to("primary_", key=("id",)), PEOPLE)
        with pytest.raises(RefusedFile, match=r"line(s 17 to)? 19: the database refuses a row: "):
            put(url, to("primary_"), {"id": [5, 2], "name": ["a\nb", "c"]}, 2, lines=[17, 19])
        assert query("SELECT count(*) FROM primary_") == [(2,)]

    @pytest.mark.parametrize("on_bad_rows", ["quarantine", "approve"])
    def test_rows_whose_key_another_file_has_loaded_are_put_aside(
        self, url: str, query: Query, tmp_path: Path, on_bad_rows: str
    ) -> None:
        for table in ("ids_", "pairs"):
            query(f"DROP TABLE IF EXISTS {table}")
        check_bad_rows(load_known_keys(url, tmp_path, on_bad_rows))
        assert query("SELECT id, kind FROM ids_ ORDER BY id") == [(1, "a"), (2, "b"), (3, "z")]
        assert query("SELECT n FROM pairs ORDER BY n") == [(1,), (2,), (3,)]

    def test_new_columns_are_refused_or_added(self, url: str, query: Query) -> None:
        put(url, to("grows"), PEOPLE)
        more = {**PEOPLE, "age": [30, None]}
        with pytest.raises(
            RefusedFile, match=r"the table grows lacks the columns \['age'\] \(it has \['id', 'name'\]\)"
        ):
            put(url, to("grows"), more, 2)
        put(url, to("grows", new_columns="add"), more, 2)
        assert query("SELECT age, count(*) FROM grows GROUP BY age ORDER BY age DESC")[-2:] in (
            [(30, 1), (None, 3)], [(None, 3), (30, 1)],
        )  # fmt: skip

    def test_a_type_that_must_widen_is_said_with_the_statement_that_does_it(self, url: str, query: Query) -> None:
        put(url, to("wide"), {"amount": [100, 250]})
        with pytest.raises(RefusedFile, match=r"the column 'amount' holds double, .*ALTER TABLE .wide.") as refused:
            put(url, to("wide"), {"amount": [99.95]}, 2)
        for statement in str(refused.value).split("widen it: ")[1].split(" (or")[0].split(";"):
            if statement.strip():
                query(statement)
        put(url, to("wide"), {"amount": [99.95]}, 2)
        assert query("SELECT amount FROM wide ORDER BY amount") == [(99.95,), (100.0,), (250.0,)]

    @pytest.mark.parametrize(
        ("narrow", "wide", "expected"),
        [([100], [99.95], [99.95, 100.0]), ([100], ["x1"], ["100", "x1"]), ([1.5], ["x"], ["1.5", "x"])],
    )
    def test_a_type_is_widened_where_that_is_allowed(
        self, url: str, query: Query, narrow: list[Any], wide: list[Any], expected: list[Any]
    ) -> None:
        table = f"widened_{len(str(narrow))}_{len(str(wide))}"
        put(url, to(table), {"n": ["a"], "v": narrow})
        put(url, to(table, wider_types="widen"), {"v": wide, "n": ["b"]}, 2)
        assert query(f"SELECT v FROM {table} ORDER BY v") == [(one,) for one in expected]

    def test_a_type_is_not_widened_where_that_would_round_a_number(self, url: str, query: Query) -> None:
        put(url, to("long_"), {"v": [2**53 + 1]})
        with pytest.raises(RefusedFile, match="integers that a floating-point number would round"):
            put(url, to("long_", wider_types="widen"), {"v": [1.5]}, 2)
        assert query("SELECT v FROM long_") == [(2**53 + 1,)]

    def test_a_table_of_another_flow_or_of_nobody_is_not_reached_by_a_files_name(self, url: str, query: Query) -> None:
        put(url, Destination(table="owned", flow="other"), PEOPLE)
        query("CREATE TABLE by_hand (id INTEGER, name VARCHAR(9))")
        with pytest.raises(TableRefused, match="belongs to the flow other"):
            put(url, to("owned", outside=True, spelling="owned"), PEOPLE)
        with pytest.raises(TableRefused, match="belongs to no flow"):
            put(url, to("by_hand", outside=True, spelling="by hand"), PEOPLE)
        assert query("SELECT count(*) FROM owned") == [(2,)]
        assert query("SELECT count(*) FROM by_hand") == [(0,)]
        put(url, to("by_hand"), PEOPLE)

    def test_two_spellings_of_a_name_do_not_share_a_table_without_a_word(self, url: str, query: Query) -> None:
        put(url, to("a_b", outside=True, spelling="a-b"), PEOPLE)
        put(url, to("a_b", outside=True, spelling="a-b"), PEOPLE, 2)
        with pytest.raises(TableRefused, match="is filled from files named 'a-b', and the name 'a b' leads to it too"):
            put(url, to("a_b", outside=True, spelling="a b"), PEOPLE, 3)
        query("DROP TABLE a_b")
        put(url, to("a_b", outside=True, spelling="a b"), PEOPLE, 3)

    def test_a_value_with_a_nul_character_is_refused_with_its_place(self, url: str, query: Query) -> None:
        with pytest.raises(RefusedFile, match="line 9, column 'name': the value holds a NUL character"):
            put(url, to("nul"), {"id": [1, 2], "name": ["fine", "not\0fine"]}, lines=[7, 9])

    @pytest.mark.parametrize(
        "hostile", ['a"; DROP TABLE t; --', "a'b", "select", "a%(b)s %s", "a:b", "[a]", "a`b", "é"]
    )
    def test_names_are_only_ever_names(self, url: str, query: Query, hostile: str) -> None:
        where = to(hostile, mode="upsert", key=("b",), wider_types="widen", new_columns="add")
        put(url, where, {"b": [1], hostile: [2]})
        put(url, where, {"b": [1], hostile: [2.5], f"{hostile}2": ["x"]}, 2)
        with open_target(url) as target:
            assert target.plan(to(hostile), pa.schema([(hostile, pa.null())])).schema == pa.schema(
                [(hostile, pa.float64())]
            )

    def test_values_are_only_ever_values(self, url: str, query: Query) -> None:
        values = ['"', "'", "\\", "\\.", "\\N", "a\r\nb", "\n", " x ", "", "%s", "NULL", "é😀", "`", ","]
        put(url, to("texts"), {"n": list(range(len(values))), "v": values})
        put(url, to("texts"), {"v": ["only"]}, 2)
        assert query("SELECT v FROM texts WHERE n IS NOT NULL ORDER BY n") == [(one,) for one in values]

    def test_loads_into_one_table_wait_for_each_other(self, url: str, query: Query) -> None:
        def one(number: int) -> None:
            for attempts_left in reversed(range(5)):
                try:
                    put(url, to("busy"), {"n": [number] * 100}, number)
                except TargetFailed as error:
                    if not (error.transient and attempts_left):
                        raise
                else:
                    return

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, range(8)))
        assert query("SELECT count(*), count(DISTINCT n) FROM busy") == [(800, 8)]

    def test_a_schema_that_is_not_there_is_named(self, url: str, query: Query) -> None:
        with pytest.raises((RefusedFile, TargetFailed), match="elsewhere"):
            put(url, to(schema="elsewhere"), PEOPLE)
