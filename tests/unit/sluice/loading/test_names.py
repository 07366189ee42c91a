"""Names of files that differ never lead to one table without a word."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.loading.names import as_dropped, column_names, original_name, table_of
from sluice.tables import LONGEST_NAME, RESERVED, table_key


@pytest.mark.parametrize(
    ("stem", "table"),
    [
        ("Orders 2026-03", "orders_2026_03"),
        ("weather", "weather"),
        ("Weather|2026", "weather_2026"),
        ("report (1)", "report_1"),
        ("订单", "订单"),
        ("हिन्दी", "हिन्दी"),
        ("café", "café"),
        (unicodedata.normalize("NFD", "café"), "café"),
        ("sqlite_master", "t_sqlite_master"),
        ("sluice_loads", "t_sluice_loads"),
        ("a\u202eb", "a_b"),
        ("x\u0302y", "x\u0302y"),
    ],
)
def test_the_table_is_named_after_the_file(stem: str, table: str) -> None:
    assert table_of(stem).table == table


@pytest.mark.parametrize(
    "stems",
    [
        ("C#", "C++", "c", "C"),
        ("😀", "🎉", "---", "❤", "❤️"),
        ("a&b", "a+b", "a@b", "ab"),
        ("हिन्दी", "हन्द", "हिन्द"),
        ("пай", "паи"),
        ("data*", "data?", "data"),
        ("long " * 40 + "1", "long " * 40 + "2"),
    ],
)
def test_names_that_say_different_things_lead_to_tables_of_their_own(stems: tuple[str, ...]) -> None:
    spellings = {table_of(stem).spelling for stem in stems}
    assert len({table_of(stem).table for stem in stems}) == len(spellings)


@pytest.mark.parametrize(
    ("one", "other"), [("café", "cafe\u0301"), ("Straße", "STRASSE"), ("İx", "i̇x"), ("Å", "\u212b"), ("a b", "A B")]
)
def test_letter_case_and_the_form_of_unicode_make_no_other_table(one: str, other: str) -> None:
    assert table_of(one) == table_of(other)


def caseless(name: str) -> str:
    """As Unicode compares two names without regard to case."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


ALIKE = st.text(alphabet="aA_-. #+éE\u0301ß\u017fKk\u212a😀\ufe0f\u200b²2", min_size=1, max_size=4)


@given(ALIKE, ALIKE)
def test_two_names_of_one_table_that_are_not_the_same_name_show_in_their_spelling(one: str, other: str) -> None:
    first, second = table_of(one), table_of(other)
    assert (first.spelling == second.spelling) == (caseless(one) == caseless(other))
    assert first.spelling != second.spelling or first.table == second.table


@given(st.text())
def test_every_name_fits_a_database(stem: str) -> None:
    name = table_of(stem).table
    assert name
    assert name.isprintable()
    assert len(name.encode()) <= LONGEST_NAME
    assert not table_key(name).startswith(RESERVED)
    assert table_of(name).table == name or not name.isascii()


def test_column_names_are_kept_apart_where_the_header_repeats_them_or_leaves_them_out() -> None:
    found = column_names(["id", "ID", "", "id", " a\n b ", "id_2", "é", "e\u0301"])
    assert found == ["id", "ID_2", "column_3", "id_3", "a b", "id_2_2", "é", "e\u0301_2"]


def test_long_column_names_are_cut_and_still_differ() -> None:
    names = column_names(["ü" * 40 + "a", "ü" * 40 + "b"], longest=63)
    assert len(set(names)) == 2
    assert all(len(name.encode()) <= 63 for name in names)


@pytest.mark.parametrize(
    ("name", "dropped"),
    [
        ("x~2.csv", "x.csv"),
        ("x~17~2.csv", "x.csv"),
        ("x~2.csv.gz", "x.csv.gz"),
        ("X~2.CSV.XZ", "X.CSV.XZ"),
        ("x~2", "x"),
        ("x~2.b.csv", "x~2.b.csv"),
        ("x~1.csv", "x~1.csv"),
        ("x~02.csv", "x~02.csv"),
        ("x~2b.csv", "x~2b.csv"),
        ("~2.csv", "~2.csv"),
        ("x~20000.csv", "x~20000.csv"),
    ],
)
def test_the_name_that_a_file_was_dropped_under(name: str, dropped: str) -> None:
    assert as_dropped(name) == dropped


@pytest.mark.parametrize(
    "name", ["x.csv.rejected.csv", "x~2.csv.rejected.csv", "x.csv.rejected~2.csv", "x~3.csv.0a1b2c3d.rejected~2.csv"]
)
def test_bad_rows_belong_to_the_file_that_was_dropped(name: str) -> None:
    assert original_name(name) == "x.csv"
