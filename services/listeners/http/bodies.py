"""Bodies of requests: which types are accepted, and how much is read."""

from __future__ import annotations

import asyncio
import email.message
from functools import lru_cache
from typing import Final

from starlette.requests import Request

from config.api import ApiSettings
from services.listeners.http.problem import ProblemDetails

CLOUDEVENT: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"


class _InHand:
    """The number of bytes of all bodies that this process is reading at the moment."""

    def __init__(self) -> None:
        self.bytes = 0


_in_hand: Final = _InHand()


async def read_body(request: Request, limit: int, settings: ApiSettings) -> bytes:
    """Return the body, reading at most ``limit`` bytes. Raises `ProblemDetails` (408, 413, 503)."""
    too_large = ProblemDetails(
        413,
        "too-large",
        f"the body has more than {limit} bytes",
        "send less, or raise SLUICE_LIMITS__MAX_EVENT_BYTES (for a batch SLUICE_API__MAX_BATCH_BYTES)",
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout_seconds):
            async for chunk in request.stream():
                body += chunk
                _in_hand.bytes += len(chunk)
                if len(body) > limit:
                    raise too_large
                if _in_hand.bytes > settings.max_bodies_bytes:
                    raise ProblemDetails(
                        503,
                        "too-busy",
                        "too many bodies are on their way at once",
                        "send it again",
                        retry_after_seconds=2,
                    )
    except TimeoutError as error:
        seconds = settings.body_timeout_seconds
        raise ProblemDetails(
            408, "too-slow", f"the body was not there after {seconds:g} s", "send it faster"
        ) from error
    finally:
        _in_hand.bytes -= len(body)
    return bytes(body)


def content_type(request: Request) -> str:
    """Return the media type of the body, which must be JSON in UTF-8; empty for an event in headers without one.

    A web page in a browser on this machine can send other types without a CORS preflight, but neither this one nor a
    header of CloudEvents. Raises `ProblemDetails` (415).
    """
    given = request.headers.getlist("content-type")
    if not given and "ce-specversion" in request.headers:
        return ""  # as some SDKs send JSON
    if len(given) > 1:
        raise ProblemDetails(415, "not-json", "the header content-type stands twice", "send it once")
    kind, charset = _kind_and_charset(given[0] if given else "")
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise ProblemDetails(415, "not-utf-8", f"the charset is {charset!r}; JSON is UTF-8", "send it in UTF-8")
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ProblemDetails(
            415, "not-json", f"the content type {kind!r} is not JSON", f"send {CLOUDEVENT}, {BATCH} or application/json"
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemDetails(415, "encoded", "the body is compressed", "send it without a content-encoding")
    return kind


@lru_cache(maxsize=64)
def _kind_and_charset(given: str) -> tuple[str, str]:
    whole = email.message.Message()
    whole["content-type"] = given
    return given.partition(";")[0].strip().lower(), str(whole.get_param("charset", "utf-8")).lower()
