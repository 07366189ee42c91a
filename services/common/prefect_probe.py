"""Checks that a Prefect server answers and accepts our password, without Prefect's client, which imports slowly."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import time
import urllib.request
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage
from typing import IO, Final
from urllib.error import HTTPError, URLError

from typing_extensions import override

from events.errors import TransientError

_REFUSED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_TRUE: Final = frozenset({"1", "true", "t", "yes", "y", "on"})
_MOST_READ: Final = 1000
"""Bytes of a response that are read: a version is shorter."""


@dataclass(frozen=True, slots=True)
class PrefectAnswer:
    """A server's response to the request for its version."""

    status: int
    text: str
    at: float | None
    """When it answered by its own clock, in seconds since the epoch; servers report whole seconds."""


def prefect_problem(url: str, *, auth_string: str | None = None) -> str | None:
    """Return why the API at ``url`` cannot be used, as the end of a sentence; None if it can.

    Without ``auth_string`` the environment's credentials are sent.
    """
    answer = ask_prefect(url, auth_string=auth_string)
    if isinstance(answer, str):
        return answer
    if answer.status in _REFUSED:
        return f"answers {answer.status}: PREFECT_API_AUTH_STRING (or PREFECT_API_KEY) must hold its password"
    if answer.status != HTTPStatus.OK:
        return f"answers {answer.status}"
    return None


async def prefect_answers(url: str, *, auth_string: str | None = None, within_seconds: float = 0.0) -> None:
    """Return when the Prefect server responds; it is asked at least once.

    Without ``auth_string`` the environment's credentials are sent. Raises `TransientError` with what is wrong if
    it does not respond within ``within_seconds``.
    """
    deadline = time.monotonic() + within_seconds
    while why := await asyncio.to_thread(prefect_problem, url, auth_string=auth_string):
        if time.monotonic() >= deadline:
            raise TransientError(f"the Prefect server at {url} {why}: `sluice status` says more")
        await asyncio.sleep(0.05)


def prefect_version(url: str) -> str | None:
    """Return the version of the server whose API is at ``url``; None if it does not report it."""
    answer = ask_prefect(url)
    return None if isinstance(answer, str) or answer.status != HTTPStatus.OK else answer.text.strip('"')


def ask_prefect(url: str, *, auth_string: str | None = None) -> PrefectAnswer | str:
    """Return the server's response with its version, or why there is none, as the end of a sentence.

    It uses the standard library, because importing httpx takes a tenth of a command's start.
    """
    auth = auth_string or os.environ.get("PREFECT_API_AUTH_STRING")
    key = os.environ.get("PREFECT_API_KEY")
    headers = {}
    if auth:
        headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
    elif key:
        headers["Authorization"] = f"Bearer {key}"
    handlers: list[urllib.request.BaseHandler] = [_AsItIs()]
    if url.lower().startswith("https:"):  # otherwise the certificates, which take long to load, are not needed
        handlers.append(urllib.request.HTTPSHandler(context=_trusted()))
    opener = urllib.request.build_opener(*handlers)
    try:
        request = urllib.request.Request(f"{url.rstrip('/')}/admin/version", headers=headers)  # noqa: S310 - http(s)
        try:
            with opener.open(request, timeout=3) as answer:
                return _answer(answer.status, answer.read(_MOST_READ), answer.headers)
        except HTTPError as error:
            with error:
                return _answer(error.code, b"", error.headers)
    except (OSError, HTTPException, ValueError) as error:
        why = error.reason if isinstance(error, URLError) else error
        return f"does not answer ({str(why) or type(why).__name__})"


class _AsItIs(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would send the password along."""

    @override
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        del req, fp, code, msg, headers, newurl


def _trusted() -> ssl.SSLContext:
    """Return the trusted authorities, as in Prefect's client: ``PREFECT_API_SSL_CERT_FILE``, or else certifi's."""
    import certifi

    named = os.environ.get("PREFECT_API_SSL_CERT_FILE") or os.environ.get("SSL_CERT_FILE")
    context = ssl.create_default_context(cafile=named or certifi.where())
    if os.environ.get("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "").lower() in _TRUE:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _answer(status: int, body: bytes, headers: Message) -> PrefectAnswer:
    at = None
    if date := headers.get("Date"):
        try:
            at = parsedate_to_datetime(date).timestamp()
        except ValueError:
            at = None
    return PrefectAnswer(status, body.decode("utf-8", "replace"), at)
