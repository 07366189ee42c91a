"""What a flow asks for when it waits, in the words that people read, and which answers it takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field, field_validator

from sluice.wait_result import (
    LONGEST_DESCRIPTION,
    OneWaitError,
    UnfitError,
    WaitSpec,
    checked_description,
    parse_answer,
)

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Approval(BaseModel):
    approved: bool
    amount: int = Field(default=0, ge=0)

    @field_validator("amount")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("it is odd")
        return value


def spec(**more: Any) -> WaitSpec:
    given: dict[str, Any] = {
        "name": "order", "keys": (), "need_all": False, "model": None, "description": "", "timeout_seconds": None,
        "remind_seconds": None, "suspend": False, "poll_seconds": 10.0,
    }  # fmt: skip
    return WaitSpec(**{**given, **more})


@pytest.mark.parametrize(
    ("keys", "need_all", "wanted"),
    [((), False, ""), (("a",), True, "'a'"), (("a", "b"), False, "'a' or 'b'"), (("a", "b"), True, "'a' and 'b'")],
)
def test_the_keys_are_told_in_words(keys: tuple[str, ...], need_all: bool, wanted: str) -> None:
    assert spec(keys=keys, need_all=need_all).wanted == wanted


def test_a_wait_ends_and_reminds_so_long_after_it_began() -> None:
    given = spec(timeout_seconds=90.0, remind_seconds=0.5)
    assert given.deadline(NOON) == NOON + timedelta(seconds=90)
    assert given.reminder(NOON) == NOON + timedelta(milliseconds=500)
    assert (spec().deadline(NOON), spec().reminder(NOON)) == (None, None)


def test_the_message_says_for_what_and_until_when() -> None:
    assert spec().message(None, "") == "Waits for a signal"
    assert spec(keys=("a",)).message(NOON, "") == "Waits for a signal with the key 'a' until 2026-03-01 12:00:00 UTC"


def test_the_message_says_what_was_wrong_with_the_last_answer() -> None:
    assert spec().message(None, "n: it is odd").endswith("; the last answer did not fit: n: it is odd")


def test_nothing_hidden_comes_into_the_message() -> None:
    assert spec().message(None, "a\x1b[2Jb\nc").isprintable()


def test_the_description_stands_above_the_message() -> None:
    assert spec(description="**Pay?**").shown("Waits for *a*") == "**Pay?**\n\nWaits for \\*a\\*"
    assert spec().shown("Waits") == "Waits"


@pytest.mark.parametrize(("text", "checked"), [(None, ""), (" a\nb \n", "a\nb"), ("", "")])
def test_a_description_keeps_its_lines(text: str | None, checked: str) -> None:
    assert checked_description(text) == checked


@pytest.mark.parametrize("text", [b"bytes", 5, ["a"]])
def test_a_description_that_is_no_text_is_refused(text: Any) -> None:
    with pytest.raises(TypeError, match="text in markdown"):
        checked_description(text)


def test_a_description_has_a_longest_length() -> None:
    assert len(checked_description("x" * LONGEST_DESCRIPTION)) == LONGEST_DESCRIPTION
    with pytest.raises(ValueError, match=f"at most {LONGEST_DESCRIPTION}"):
        checked_description("x" * (LONGEST_DESCRIPTION + 1))


def test_an_answer_is_an_instance_of_the_model_or_as_it_was_sent() -> None:
    assert parse_answer(Approval, {"approved": True, "amount": 2}) == Approval(approved=True, amount=2)
    assert parse_answer(None, {"anything": [1]}) == {"anything": [1]}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"approved": True, "amount": 3}, "amount: Value error, it is odd"),
        ({}, "approved: Field required"),
        ({"amount": 1}, "approved: Field required; amount: Value error, it is odd"),
        ({"approved": True, "amount": "a\x1b"}, "amount: Input should be a valid integer"),
    ],
)
def test_an_answer_that_the_model_refuses_is_told_with_every_fault(value: dict[str, Any], said: str) -> None:
    with pytest.raises(UnfitError) as caught:
        parse_answer(Approval, value)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_run_that_waits_already_says_so() -> None:
    assert "one wait at a time" in str(OneWaitError())
