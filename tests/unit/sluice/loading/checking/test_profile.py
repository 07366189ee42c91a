"""What the report of a load says of the values of a column."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest

from sluice.loading.checking import profile
from sluice.loading.checking.profile import ColumnProfile


def told(*batches: Any, secret: bool = False) -> dict[str, Any]:
    found = ColumnProfile(secret=secret)
    for batch in batches:
        found.add(batch if isinstance(batch, pa.Array) else pa.array(batch))
    return found.told()


def test_missing_values_are_counted() -> None:
    assert told([1, None], [None, 4]) == {"empty": 2, "empty_share": 0.5, "least": "1", "most": "4"}
    assert told() == {"empty": 0, "empty_share": 0.0}


def test_numbers_and_times_have_ends_and_texts_have_none() -> None:
    assert (told([3, 1], [2, 9])["least"], told([3, 1], [2, 9])["most"]) == ("1", "9")
    assert told([dt.date(2024, 1, 2)], [dt.date(2023, 1, 2)])["least"] == "2023-01-02"
    assert "least" not in told(["a", "b"])


def test_the_most_frequent_values_come_first_and_only_where_one_repeats() -> None:
    assert told(["a", "b"], ["b", "c"])["top"] == {"b": 2, "a": 1, "c": 1}
    assert "top" not in told(["a", "b", "c"])
    assert len(told([number // 2 for number in range(40)])["top"]) == 5


def test_hidden_characters_of_a_value_are_shown_and_long_ones_cut() -> None:
    assert next(iter(told(["\x1b[2J" + "x" * 100] * 2)["top"])).isprintable()
    assert len(next(iter(told(["x" * 100] * 2)["top"]))) <= 40


def test_nothing_is_kept_of_personal_data_but_how_much_is_missing() -> None:
    assert told([1, 1, None], secret=True) == {"empty": 1, "empty_share": pytest.approx(1 / 3)}


def test_too_many_different_values_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "_MOST_DIFFERENT", 3)
    assert told([1, 1, 2, 3])["top"] == {"1": 2, "2": 1, "3": 1}
    assert "top" not in told([1, 1, 2, 3], [4, 4])


def test_only_the_first_rows_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "SAMPLED_ROWS", 2)
    assert told([1, 1], [2, 2, 2])["top"] == {"1": 2}


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (pa.array([1, 2]), pa.array(["x"])),
        (pa.array([1, 2]), pa.array([1.5])),
        (pa.array([1, 2]), pa.array([dt.date(2024, 1, 1)])),
        (pa.array([dt.date(2024, 1, 1)]), pa.array([dt.datetime(2024, 1, 1)])),  # noqa: DTZ001
        (pa.array([3_000_000], pa.date32()), pa.array([dt.date(2024, 1, 1)])),
    ],
)
def test_a_column_may_hold_another_type_later(first: pa.Array, later: pa.Array) -> None:
    found = told(first, later, later)
    assert found["empty"] == 0
    assert found["top"]


def test_times_beyond_those_of_python_are_counted() -> None:
    found = told(pa.array([3_000_000, 3_000_000], pa.date32()))
    assert found["top"] == {"10183-09-21": 2}
    assert "least" not in found
