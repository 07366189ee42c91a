"""Refusals as problems (RFC 9457): a status, a short word, what is wrong and what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from events.errors import Backpressure, ConfigError, NotFound, Refused, RejectedEvent, TransientError
from services.listeners.http.problem import (
    PROBLEM_SCHEMA,
    ProblemDetails,
    plain_refusal,
    problem_of,
    problem_response,
    rejected,
)

GET = Request({"type": "http", "method": "GET", "path": "/nowhere", "headers": [], "server": ("localhost", 80)})


def shown(problem: ProblemDetails) -> tuple[dict[str, Any], dict[str, str]]:
    """The body and the headers of the response."""
    response = problem_response(problem)
    assert response.media_type == "application/problem+json"
    body = json.loads(bytes(response.body))
    assert body["status"] == response.status_code
    assert set(PROBLEM_SCHEMA["required"]) <= set(body) <= set(PROBLEM_SCHEMA["properties"])
    return body, dict(response.headers)


@pytest.mark.parametrize(
    ("error", "status", "code", "detail"),
    [
        (ProblemDetails(418, "tea", "a pot", "pour"), 418, "tea", "a pot"),
        (Refused("ambiguous", "several"), 409, "ambiguous", "several"),
        (Refused("not-replayed", "too late"), 400, "not-replayed", "too late"),
        (RejectedEvent("too-deep", "17 levels"), 400, "too-deep", "17 levels"),
        (NotFound("there is no x"), 404, "not-found", "there is no x"),
        (ConfigError("cursor: no"), 400, "bad-request", "cursor: no"),
        (TransientError("Redis is away"), 503, "unavailable", "Redis is away"),
        (Backpressure("Redis is full"), 503, "unavailable", "Redis is full"),
        (TimeoutError(), 503, "unavailable", "the journal did not answer in time; the event may have been taken in"),
    ],
)
def test_each_error_is_a_problem(error: Exception, status: int, code: str, detail: str) -> None:
    body, _ = shown(problem_of(error))
    assert (body["status"], body["code"], body["detail"]) == (status, code, detail)
    assert body["what_to_do"]


def test_a_bad_parameter_is_named_with_what_is_wrong() -> None:
    error = RequestValidationError([{"loc": ("query", "limit"), "msg": "too large"}, {"loc": ("body",), "msg": "no"}])
    body, _ = shown(problem_of(error))
    assert (body["status"], body["detail"]) == (422, "query.limit: too large; body: no")
    many = RequestValidationError([{"loc": ("query", "x" * 100), "msg": "y"}] * 100)
    assert len(problem_of(many).detail) <= 2000


def test_a_message_that_can_never_be_accepted_names_its_dead_letter() -> None:
    body, _ = shown(rejected(RejectedEvent("not-json", "it is none"), "letter-1"))
    assert (body["dead_letter"], "UTF-8 JSON" in body["what_to_do"]) == ("letter-1", True)
    assert "mend the message" in rejected(Refused("unheard-of", "no")).what_to_do
    assert "dead_letter" not in shown(rejected(RejectedEvent("not-json", "it is none")))[0]


@pytest.mark.parametrize(
    ("problem", "header", "value"),
    [
        (ProblemDetails(413, "too-large", "d", "w"), "connection", "close"),
        (ProblemDetails(503, "too-busy", "d", "w"), "connection", "close"),
        (ProblemDetails(400, "not-json", "d", "w"), "connection", None),
        (ProblemDetails(401, "no-token", "d", "w"), "www-authenticate", 'Bearer realm="sluice"'),
        (ProblemDetails(503, "unavailable", "d", "w", retry_after_seconds=2), "retry-after", "2"),
    ],
)
def test_headers_say_what_becomes_of_the_connection(problem: ProblemDetails, header: str, value: str | None) -> None:
    assert shown(problem)[1].get(header) == value


async def test_what_starlette_refuses_is_a_problem_too() -> None:
    response = await plain_refusal(GET, HTTPException(404))
    assert json.loads(bytes(response.body))["detail"] == "GET /nowhere: Not Found"
    with pytest.raises(ZeroDivisionError):
        await plain_refusal(GET, ZeroDivisionError())
