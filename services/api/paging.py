"""Pages of listings: a cursor says where the last page ended, and stays valid when new rows arrive."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

from fastapi import Query
from pydantic import BaseModel

from events.errors import ConfigError
from services.listeners.http.problem import ProblemDetails

LONGEST_SECONDS: Final = 10.0
_LARGEST: Final = 2**53

Limit = Annotated[int, Query(ge=1, le=500, description="At most so many")]
Cursor = Annotated[str | None, Query(max_length=2000, description="`next` of the page before")]


class Page(BaseModel):
    """One page of a listing, the newest first; ``next`` is None where nothing follows."""

    items: list[dict[str, Any]]
    next: str | None


def page(rows: Sequence[dict[str, Any]], following: Sequence[Any] | None) -> Page:
    """Return the rows, and an opaque cursor made of ``following``."""
    if following is None:
        return Page(items=list(rows), next=None)
    return Page(items=list(rows), next=base64.urlsafe_b64encode(json.dumps(following).encode()).decode().rstrip("="))


def parts_of(cursor: str | None, *kinds: type) -> list[Any] | None:
    """Return the values from which `page` made the cursor; raises `ConfigError` for any other text."""
    if cursor is None:
        return None
    try:
        parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if (
            isinstance(parts, list)
            and [type(part) for part in parts] == list(kinds)
            and all(isinstance(part, str) or 0 <= part <= _LARGEST for part in parts)
        ):
            return parts
    except (binascii.Error, ValueError, RecursionError):
        pass
    raise ConfigError("cursor: it is not from a page of this listing: begin again without it")


@asynccontextmanager
async def patience() -> AsyncIterator[None]:
    """End a listing that has to search too much; raises `ProblemDetails` (503)."""
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            yield
    except TimeoutError as error:
        said = f"there is too much to look through in {LONGEST_SECONDS:g} s"
        raise ProblemDetails(
            503, "too-much", said, "narrow it by `since`, `until` or `rule`", retry_after_seconds=30
        ) from error
