"""What every filter and test keeps to: its arguments, its work, and what JSON can carry."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from jinja2 import StrictUndefined, UndefinedError

from events.errors import RejectedEvent
from events.filters import FILTERS, TESTS, bounds
from events.filters.bounds import Fault
from events.sandbox import RunningTemplate
from events.template import Expression
from events.template_check import TemplateProblem
from tests.unit.events.making import json_values

MISSING = StrictUndefined(name="gone")


class Account(RunningTemplate):
    """A running template that tells what was spent."""

    def __init__(self) -> None:
        super().__init__({})
        self.spent = 0

    def spend(self, amount: int) -> None:
        self.spent += amount
        super().spend(amount)


@given(json_values)
def test_every_filter_answers_any_value_or_refuses_it(value: object) -> None:
    for name in FILTERS:
        with suppress(RejectedEvent, TemplateProblem):
            Expression(f"x | {name}", {"x": None}).value({"x": value})


@given(json_values, json_values)
def test_every_test_answers_any_value_or_refuses_it(value: object, other: object) -> None:
    for name in TESTS:
        for source in (f"x is {name}", f"x is {name}(y)"):
            try:
                found = Expression(source, {"x": None, "y": None}).value({"x": value, "y": other})
            except (RejectedEvent, TemplateProblem):
                continue
            assert isinstance(found, bool)


@pytest.mark.parametrize(
    ("value", "said"), [("a\n", "a\n"), (1.5, "1.5"), (None, "null"), (True, "true"), (["ä"], '["ä"]'), ({}, "{}")]
)
def test_anything_but_text_stands_in_a_text_as_json(value: Any, said: str) -> None:
    assert bounds.text(value) == said


@pytest.mark.parametrize(("take", "fit"), [("text", "ab"), ("list", [1, 2]), ("mapping", {"a": 1, "b": 2})])
def test_what_is_taken_costs_as_much_as_it_is_long(take: str, fit: Any) -> None:
    account = Account()
    assert getattr(bounds, f"take_{take}")(account, fit, "f") == fit
    assert account.spent == 2


@pytest.mark.parametrize("take", ["text", "list", "mapping"])
@pytest.mark.parametrize(("value", "kind"), [(None, "null"), (True, "a boolean"), (7, "a number")])
def test_what_does_not_fit_is_named_with_its_kind(take: str, value: Any, kind: str) -> None:
    with pytest.raises(Fault, match=f"`f` takes .*{take}, not {kind}"):
        getattr(bounds, f"take_{take}")(Account(), value, "f")


@pytest.mark.parametrize("take", ["text", "list", "mapping"])
def test_what_is_missing_is_told_as_missing(take: str) -> None:
    with pytest.raises(UndefinedError, match="gone"):
        getattr(bounds, f"take_{take}")(Account(), MISSING, "f")


def test_a_mapping_taken_as_a_list_is_its_keys() -> None:
    assert bounds.take_list(Account(), {"a": 1}, "f") == ["a"]


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, float("inf"), float("nan")])
def test_a_number_that_json_readers_do_not_keep_is_a_fault(number: float) -> None:
    with pytest.raises(Fault):
        bounds.bounded(number)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 1e308])
def test_the_largest_numbers_are_kept(number: float) -> None:
    assert bounds.bounded(number) == number


def test_the_work_on_a_value_counts_every_depth_and_the_keys() -> None:
    account = Account()
    bounds.spend_deep(account, {"ab": [1, "xyz"]})
    assert account.spent == (1 + 1) + 2 + (1 + 2) + (1 + 1) + (1 + 3)


def test_a_key_that_is_no_text_is_a_fault() -> None:
    with pytest.raises(Fault, match="key 1"):
        bounds.spend_deep(Account(), [{1: 2}])


def test_a_text_that_would_grow_too_long_is_never_made() -> None:
    half = "x" * (bounds.LONGEST_TEXT // 2)
    assert len(bounds.joined(Account(), half, half)) == bounds.LONGEST_TEXT
    with pytest.raises(Fault, match="characters"):
        bounds.joined(Account(), half, half, "x")
