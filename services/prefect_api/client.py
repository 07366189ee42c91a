"""A connection to Prefect's API whose errors are ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError

from events.errors import NotFound, RejectedEvent, TransientError

_CLIENT_ERROR = 400
_NOT_FOUND = 404
_RETRIED = frozenset({408, 425, 429})
_SERVER_ERROR = 500


class PrefectApi:
    """Plain requests to Prefect's REST API through Prefect's own client (its authentication, TLS and retries).

    Every method raises `TransientError` when Prefect is out of reach or overloaded, `NotFound` for an unknown id, and
    `RejectedEvent` (code ``prefect-refused``) for a request that Prefect will never take.
    """

    def __init__(self, client: PrefectClient) -> None:
        self._client = client

    @property
    def url(self) -> str:
        """The API's address, such as ``http://127.0.0.1:4200/api``."""
        return str(self._client.api_url).rstrip("/")

    async def request(self, method: Literal["GET", "POST", "PATCH", "DELETE", "PUT"], path: str, **body: Any) -> Any:
        """One call; ``json=`` or ``params=`` as httpx takes them; answers the parsed JSON, or None without a body."""
        try:
            response = await self._client._client.request(method, path, **body)  # noqa: SLF001 - see below
        except PrefectHTTPStatusError as error:
            raise _refused(error.response) from error
        except httpx.HTTPStatusError as error:
            raise _refused(error.response) from error
        except (httpx.HTTPError, OSError) as error:
            raise TransientError(
                f"Prefect at {self.url} is out of reach: {str(error) or type(error).__name__}"
            ) from error
        if response.status_code >= _CLIENT_ERROR:
            raise _refused(response)
        return response.json() if response.content else None


@asynccontextmanager
async def connect() -> AsyncIterator[PrefectApi]:
    """The API that ``PREFECT_API_URL`` names (and Prefect's own settings describe), for one event loop."""
    async with get_client(sync_client=False) as client:
        yield PrefectApi(client)


def _refused(response: httpx.Response) -> Exception:
    where = f"{response.request.method} {response.request.url.path}"
    said = response.text[:2000]
    if response.status_code == _NOT_FOUND:
        return NotFound(f"Prefect does not know it ({where}): {said}")
    if response.status_code in _RETRIED or response.status_code >= _SERVER_ERROR:
        return TransientError(f"Prefect answered {response.status_code} to {where}: {said}")
    return RejectedEvent("prefect-refused", f"Prefect answered {response.status_code} to {where}: {said}")
