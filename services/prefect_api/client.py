"""A connection to Prefect's API whose errors are ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import httpx
import structlog
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_UI_URL

from events.errors import NotFound, Refused, TransientError
from events.redact import redacted, without_credentials
from services.common.backoff import ended
from services.common.prefect_versions import untested_versions
from services.home.prefect_pages import run_page
from services.prefect_api.compat import empty_connection_pool, http_client, send_once

PAGE: Final = 200
"""Prefect's own limit of items in one response."""

_CLIENT_ERROR = 400
_FORBIDDEN = 403
_NOT_FOUND = 404
_RETRIED = frozenset({408, 425, 429})
_CREDENTIALS = frozenset({401, 403})
_SERVER_ERROR = 500
_SAID_LIMIT = 2000
_VERSION_SECONDS = 3.0

log = structlog.get_logger()


class PrefectRefused(Refused):
    """Prefect will never accept the request (code ``prefect-refused``); its response had ``status`` and ``said``."""

    def __init__(self, status: int, said: str, where: str) -> None:
        super().__init__("prefect-refused", f"Prefect answered {status} to {where}: {said}")
        self.status = status
        self.said = said


class PrefectApi:
    """Plain requests to Prefect's REST API through Prefect's own client (its authentication, TLS and retries).

    Every method raises `TransientError` when Prefect is out of reach or overloaded or does not accept our credentials,
    `NotFound` for an unknown id, and `PrefectRefused` for a request that it will never accept.
    """

    def __init__(self, client: PrefectClient, *, patience_seconds: float | None = None) -> None:
        self._client = client
        self._patience_seconds = patience_seconds

    @property
    def url(self) -> str:
        """The API's address, such as ``http://127.0.0.1:4200/api``."""
        return str(self._client.api_url).rstrip("/")

    async def request(
        self, method: Literal["GET", "POST", "PATCH", "DELETE", "PUT"], path: str, *, once: bool = False, **body: Any
    ) -> Any:
        """`_request`, given up when it takes longer than this client's patience."""
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await self._request(method, path, once=once, **body)
        except TimeoutError as error:
            said = f"Prefect at {redacted(self.url)} has not answered within {self._patience_seconds:g} s"
            raise TransientError(f"{said}: `sluice status` says more") from error

    async def _request(
        self, method: Literal["GET", "POST", "PATCH", "DELETE", "PUT"], path: str, *, once: bool = False, **body: Any
    ) -> Any:
        """Make one call, with ``json=`` or ``params=`` as in httpx; return the parsed JSON, or None without a body.

        Prefect's client repeats a call without a response for up to a minute. With ``once`` it is sent a single time,
        for calls that must not happen twice and for callers with a time limit of their own.
        """
        inner = http_client(self._client)
        try:
            if once:
                response = await send_once(self._client, inner.build_request(method, path, **body))
            else:
                response = await inner.request(method, path, **body)
        except (PrefectHTTPStatusError, httpx.HTTPStatusError) as error:
            response = error.response
        except (httpx.HTTPError, OSError) as error:
            if isinstance(error, httpx.PoolTimeout):
                await self._empty_pool()
            raise TransientError(
                f"Prefect at {redacted(self.url)} is out of reach: {str(error) or type(error).__name__}"
            ) from error
        if _wants_token(response) and not inner.enable_csrf_support:
            inner.enable_csrf_support = True  # the server required none when this client first asked it
            return await self._request(method, path, once=once, **body)
        if response.status_code >= _CLIENT_ERROR:
            raise _refused(response)
        try:
            return response.json() if response.content else None
        except ValueError as error:
            msg = f"something else than Prefect answered at {redacted(self.url)}: {response.text[:100]!r} is not JSON"
            raise TransientError(msg) from error

    async def pages(
        self, path: str, body: Mapping[str, Any], *, limit: int | None = None, once: bool = False
    ) -> list[dict[str, Any]]:
        """Return the results of a filter, the first ``limit`` or all of them, read page by page."""
        found: list[dict[str, Any]] = []
        while True:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            asked = {**body, "limit": size, "offset": len(found)}
            page = await self.request("POST", path, once=once, json=asked) if size else []
            found += page
            if len(page) < PAGE:
                return found

    async def _empty_pool(self) -> None:
        """Handle a pool in which no connection became free for as long as a request may take."""
        log.warning("prefect's client has run out of connections, beginning with new ones", url=self.url)
        await empty_connection_pool(self._client)

    @property
    def ui(self) -> str:
        """The URL of Prefect's UI."""
        return without_credentials(PREFECT_UI_URL.value() or self.url.removesuffix("/api"))

    def run_url(self, run_id: str) -> str:
        """Return the URL of the flow run in Prefect's UI."""
        return run_page(self.ui, run_id)


@asynccontextmanager
async def connect(
    url: str | None = None,
    *,
    auth_string: str | None = None,
    check_version: bool = False,
    patience_seconds: float | None = None,
) -> AsyncIterator[PrefectApi]:
    """Yield the API at ``url`` (else at ``PREFECT_API_URL``), with Prefect's other settings, for one event loop.

    Prefect reads its settings once, when it is first imported: a process that gets address and password later must pass
    them. No call takes longer than ``patience_seconds``, if they are given. With ``check_version``, a server or a
    client of an untested version is logged as a warning, meanwhile.
    """
    if url is None:
        client = get_client(sync_client=False)
    else:
        key, auth = PREFECT_API_KEY.value(), auth_string or PREFECT_API_AUTH_STRING.value()
        client = PrefectClient(url, api_key=key or None, auth_string=auth or None)
    async with client:
        api = PrefectApi(client, patience_seconds=patience_seconds)
        checking = [asyncio.create_task(_warn_of_untested_versions(api))] if check_version else []
        try:
            yield api
        finally:
            await ended(*checking)


async def _warn_of_untested_versions(api: PrefectApi) -> None:
    """Log a warning for a server or a client of a version that Sluice is not tested with."""
    try:
        server = await asyncio.wait_for(api.request("GET", "/admin/version", once=True), _VERSION_SECONDS)
    except (TransientError, NotFound, Refused, TimeoutError):
        server = None  # the part that needs the server reports that it does not answer
    for sentence in untested_versions(server, url=redacted(api.url)):
        log.warning("untested version of Prefect", problem=sentence)


def _wants_token(response: httpx.Response) -> bool:
    """Whether a request was refused unread for the lack of a CSRF token."""
    return response.status_code == _FORBIDDEN and "CSRF" in response.text


def _refused(response: httpx.Response) -> Exception:
    """Return the error for a response that is not a success: transient, not found, or refused."""
    where = f"{response.request.method} {response.request.url.path}"
    said = _said(response)
    if response.status_code == _NOT_FOUND:
        return NotFound(f"Prefect does not know it ({where}): {said}")
    if response.status_code in _CREDENTIALS:
        keys = "PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
        return TransientError(f"Prefect answered {response.status_code} to {where}: check {keys}; {said}")
    if response.status_code in _RETRIED or response.status_code >= _SERVER_ERROR:
        return TransientError(f"Prefect answered {response.status_code} to {where}: {said}")
    return PrefectRefused(response.status_code, said, where)


def _said(response: httpx.Response) -> str:
    """Return the server's own words, without the whole input that a validation error repeats."""
    try:
        answer = response.json()
    except ValueError:
        return response.text[:_SAID_LIMIT]
    detail = answer.get("exception_detail", answer.get("detail", answer)) if isinstance(answer, dict) else answer
    if isinstance(detail, list) and all(isinstance(one, dict) and "msg" in one for one in detail):
        faults = (f"{'.'.join(map(str, one.get('loc', ())))}: {one['msg']}" for one in detail)
        return "; ".join(faults)[:_SAID_LIMIT]
    return str(detail)[:_SAID_LIMIT]
