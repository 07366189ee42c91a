"""Cursors of listings: they come back as they went out, and no other text passes for one."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.errors import ConfigError
from services.api import paging
from services.api.paging import page, parts_of, patience
from services.listeners.http.problem import ProblemDetails


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@given(st.text(max_size=30), st.integers(0, 2**53))
def test_a_cursor_comes_back_as_what_it_was_made_of(text: str, number: int) -> None:
    cursor = page([], [text, number]).next
    assert cursor is not None
    assert cursor.replace("-", "").replace("_", "").isalnum()
    assert parts_of(cursor, str, int) == [text, number]


def test_the_last_page_has_no_cursor_and_the_first_needs_none() -> None:
    assert page([{"id": 1}], None).model_dump() == {"items": [{"id": 1}], "next": None}
    assert parts_of(None, str) is None


@pytest.mark.parametrize(
    "cursor",
    [
        "", "!", "ä", "aGVsbG8", "W", encoded({"a": 1}), encoded(["a"]), encoded([1, 2]), encoded(["a", -1]),
        encoded(["a", 2**53 + 1]), encoded(["a", True]), encoded(["a", 1.0]), encoded(["a", 1, 2]),
        base64.urlsafe_b64encode(b"[" * 5000).decode(), encoded(["a", 1]) + "\n",
    ],
)  # fmt: skip
def test_another_text_is_no_cursor(cursor: str) -> None:
    with pytest.raises(ConfigError, match="it is not from a page of this listing"):
        parts_of(cursor, str, int)


@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_text_is_a_cursor_or_refused(cursor: str) -> None:
    try:
        found = parts_of(cursor, int)
    except ConfigError:
        return
    assert found is not None
    assert 0 <= found[0] <= 2**53


async def test_a_search_that_takes_too_long_ends_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "LONGEST_SECONDS", 0.01)
    with pytest.raises(ProblemDetails) as refused:
        async with patience():
            await asyncio.Event().wait()
    assert (refused.value.status, refused.value.code) == (503, "too-much")
    assert "narrow it" in refused.value.what_to_do
