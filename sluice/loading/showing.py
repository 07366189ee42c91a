"""Shows content of a file in messages, unless the file has personal data, of which nothing is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from sluice.display import visible

MASKED: Final = "(masked)"
"""Stands for a value with personal data, in messages and among bad rows."""

_HIDING: Final = ContextVar("_HIDING", default=False)


@contextmanager
def hiding(hide: bool) -> Iterator[None]:
    """Hide everything that `content` would show within the block, if ``hide`` is true.

    It is for content of which the column is unknown, in files with masked columns. It holds for the thread, and for
    iterations within the block.
    """
    before = _HIDING.set(hide or _HIDING.get())
    try:
        yield
    finally:
        _HIDING.reset(before)


def content(text: str, limit: int | None = None) -> str:
    """Return ``text`` from a file as it may be shown; see `sluice.visible`."""
    return MASKED if _HIDING.get() else visible(text, limit)
