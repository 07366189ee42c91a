"""Responses of the HTTP listener to requests that it refuses: what is wrong, where, and what to do (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from events.errors import ConfigError, NotFound, Refused

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


_LEAVES_BODY_UNREAD = frozenset({401, 403, 404, 405, 408, 413, 415, 429})

PROBLEM: Final = "application/problem+json"

PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {
        "description": "What is wrong, where, and what to do (RFC 9457)",
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    },
    "503": {
        "description": "Not now: the same again after `Retry-After` seconds",
        "headers": {"Retry-After": {"schema": {"type": "integer"}}},
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    },
}
"""The problems that any call may get, for the OpenAPI document."""

PROBLEM_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "what_to_do"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "a short stable word"},
        "detail": {"type": "string"},
        "what_to_do": {"type": "string"},
        "dead_letter": {"type": "string", "description": "the dead letter in which the message is kept"},
    },
}


class ProblemDetails(Exception):
    """A response other than 2xx; ``code`` is a short stable word."""

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


def rejected(error: Refused, letter_id: str | None = None) -> ProblemDetails:
    """Return the problem of a message that can never be accepted; ``letter_id`` names its dead letter."""
    what_to_do = _WHAT_TO_DO.get(error.code, "mend the message and send it again")
    return ProblemDetails(400, error.code, error.reason, what_to_do, letter_id=letter_id)


def problem_response(problem: ProblemDetails) -> Response:
    """Return the problem as a response. It closes the connection if the body may not have been read."""
    headers = {}
    if problem.status in _LEAVES_BODY_UNREAD or problem.code in {"too-busy", "too-many-connections"}:
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
    return JSONResponse(body, problem.status, headers, media_type=PROBLEM)


def problem_of(error: Exception) -> ProblemDetails:
    """Return an error of ours, or of FastAPI's validation, as a problem."""
    match error:
        case ProblemDetails():
            found = error
        case Refused(code="ambiguous"):
            found = ProblemDetails(409, error.code, error.reason, "say which one is meant, for an event by `?source=`")
        case Refused():
            found = rejected(error)
        case NotFound():
            found = ProblemDetails(404, "not-found", str(error), "see what there is in the listing")
        case ConfigError():
            found = ProblemDetails(400, "bad-request", str(error), "mend the parameter that it names")
        case RequestValidationError():
            faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            found = ProblemDetails(422, "bad-request", "; ".join(faults)[:2000], "mend what it names; /docs says more")
        case _:  # the same request may succeed later
            said = str(error) or "the journal did not answer in time; the event may have been taken in"
            fix = "send the same again, an event with the same id"
            found = ProblemDetails(503, "unavailable", said, fix, retry_after_seconds=2)
    return found


async def plain_refusal(request: Request, error: Exception) -> Response:
    """Return Starlette's own refusals, such as of an unknown path, as problems, too."""
    if not isinstance(error, HTTPException):
        raise error
    where = f"{request.method} {request.url.path}"
    return problem_response(
        ProblemDetails(error.status_code, "no-such-thing", f"{where}: {error.detail}", "GET /docs has what there is")
    )
