"""Tasks as functions, without a server: what they make, and after which errors they are tried again."""

from __future__ import annotations

import errno
from typing import Any, cast

import httpx
import pytest
from prefect.logging import disable_run_logger
from prefect.states import Failed
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError

from flows.basic_pipeline import process
from tasks.checks import check_rows
from tasks.log_lines import log_event
from tasks.retries import DATABASE, NETWORK, UPLOAD, RetryPolicy, Unavailable


def test_a_task_alone_is_a_function() -> None:
    assert process.fn(" apples, 3.5") == {"name": "apples", "amount": 3.5}
    with pytest.raises(ValueError, match="has no comma: write name,amount"):
        process.fn("apples 3.5")


def test_rows_are_refused_with_all_that_is_wrong() -> None:
    rows = [{"id": 1, "name": "a"}, {"id": 1, "name": ""}, {"id": 2, "name": None}]
    with pytest.raises(ValueError, match="4 are wanted; name is empty in rows 2, 3; id repeats a value in row 2"):
        check_rows.fn(rows, least=4, columns=["name"], unique="id")
    check_rows.fn(rows[:1], columns=["name"], unique="id")


def test_what_logs_is_tested_without_a_run_too() -> None:
    with disable_run_logger():
        log_event("stored", rows=3)


def again(policy: RetryPolicy, error: Exception) -> bool:
    nothing = cast("Any", None)
    return policy["retry_condition_fn"](nothing, nothing, Failed(data=error))


@pytest.mark.parametrize(
    ("policy", "can_pass", "cannot"),
    [
        (
            NETWORK,
            [Unavailable("busy"), httpx.ConnectError("refused"), httpx.ReadTimeout("silent"), ConnectionResetError()],
            [ValueError("no such thing"), FileNotFoundError()],
        ),
        (
            DATABASE,
            [OperationalError("locked", None, Exception()), InterfaceError("gone", None, Exception())],
            [IntegrityError("twice", None, Exception()), ConnectionResetError(), ValueError()],
        ),
        (
            UPLOAD,
            [
                Unavailable("nobody answers"),
                OSError(errno.EIO, "broken"),
                httpx.ConnectError("refused"),
                TimeoutError(),
            ],
            [FileNotFoundError(), PermissionError(), OSError(errno.ENAMETOOLONG, "too long"), ValueError("differs")],
        ),
    ],
    ids=["network", "database", "upload"],
)
def test_a_policy_tries_again_what_can_pass_and_nothing_else(
    policy: RetryPolicy, can_pass: list[Exception], cannot: list[Exception]
) -> None:
    assert [error for error in can_pass if not again(policy, error)] == []
    assert [error for error in cannot if again(policy, error)] == []


@pytest.mark.parametrize(
    ("policy", "tries", "least", "most"),
    [(NETWORK, 5, 15, 30), (DATABASE, 6, 2.5 * 60, 4 * 60), (UPLOAD, 9, 3600, 1.6 * 3600)],
    ids=["network", "database", "upload"],
)
def test_a_policy_takes_as_long_as_the_page_says(policy: RetryPolicy, tries: int, least: float, most: float) -> None:
    assert policy["retries"] + 1 == tries
    pauses = policy["retry_delay_seconds"](policy["retries"])
    assert pauses == sorted(pauses)
    assert least <= sum(pauses)
    assert sum(pauses) * (1 + policy["retry_jitter_factor"]) <= most
