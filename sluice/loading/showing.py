"""What is in a file, shown in a message: unless the file has personal data in it, of which nothing is shown."""

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
    """Within the block, `content` shows nothing if ``hide`` is true: which column a piece of a file is of is not known.

    It holds for the thread, and for what is iterated within the block.
    """
    before = _HIDING.set(hide or _HIDING.get())
    try:
        yield
    finally:
        _HIDING.reset(before)


def content(text: str, limit: int | None = None) -> str:
    """``text``, which a file holds, as it may be shown; see `sluice.visible`."""
    return MASKED if _HIDING.get() else visible(text, limit)
