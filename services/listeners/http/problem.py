"""What the HTTP listener answers when it does not take something: what is wrong, where, and what to do (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from events.errors import RejectedEvent

_WHAT_TO_DO: Final = {
    "too-large": "send less, or raise SLUICE_LIMITS__MAX_EVENT_BYTES",
    "too-deep": "nest less deeply, or raise SLUICE_LIMITS__MAX_DEPTH",
    "not-json": "send one UTF-8 JSON value with finite numbers and without repeated keys",
    "not-an-object": "send a JSON object",
    "not-a-cloudevent": "send CloudEvents 1.0 with `specversion`, `id`, `source` and `type`, or plain JSON to a source"
    " that has a default `type`",
    "not-a-batch": "send a JSON array of CloudEvents",
    "not-a-signal": "send `run_id` or `key`, and `input` if the run asks for one",
    "hydration": "rename the key",
    "nul": "take the character out",
    "reserved": "choose a type that does not begin with `sluice.` and a source that does not begin with `files/`",
}


_LEAVES_BODY_UNREAD = frozenset({401, 404, 405, 408, 413, 415})


class ProblemDetails(Exception):
    """An answer other than 2xx; ``code`` is a short stable word."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        what_to_do: str,
        *,
        letter_id: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.what_to_do = what_to_do
        self.letter_id = letter_id
        self.retry_after_seconds = retry_after_seconds


def rejected(error: RejectedEvent, letter_id: str | None = None) -> ProblemDetails:
    """The problem of a message that will never be accepted; ``letter_id`` names where it is kept."""
    what_to_do = _WHAT_TO_DO.get(error.code, "mend the message and send it again")
    return ProblemDetails(400, error.code, error.reason, what_to_do, letter_id=letter_id)


def problem_response(problem: ProblemDetails) -> Response:
    """The problem as an answer. The connection ends with it where the body may not have been read."""
    headers = {}
    if problem.status in _LEAVES_BODY_UNREAD:
        headers["connection"] = "close"
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = 'Bearer realm="sluice"'
    if problem.retry_after_seconds is not None:
        headers["retry-after"] = str(problem.retry_after_seconds)
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "what_to_do": problem.what_to_do,
        **({"dead_letter": problem.letter_id} if problem.letter_id else {}),
    }
    return JSONResponse(body, problem.status, headers, media_type="application/problem+json")


def for_now(error: Exception) -> ProblemDetails:
    """The problem of a request that may be repeated as it is."""
    said = str(error) or "the journal did not answer in time; the event may have been taken in"
    return ProblemDetails(503, "unavailable", said, "send the same event with the same id again", retry_after_seconds=2)


async def plain_refusal(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses, such as an unknown path, as a problem too."""
    if not isinstance(error, HTTPException):
        raise error
    where = f"{request.method} {request.url.path}"
    return problem_response(
        ProblemDetails(error.status_code, "no-such-thing", f"{where}: {error.detail}", "see docs/sources.md")
    )
