"""Options of the Prefect server that the role's process reads on behalf of every run.

This saves three requests before the first line of a flow: one for a CSRF token, two for the default result storage.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import prefect.results
from prefect.client.orchestration import SyncPrefectClient
from prefect.context import FlowRunContext

FRESH_SECONDS: Final = 15.0
"""Options older than this are not used: the run asks the server itself."""

_STORAGE: Final = ("_read_server_default_result_storage_block_id", "_aread_server_default_result_storage_block_id")


@dataclass(frozen=True, slots=True)
class ServerOptionsCache:
    """The server's options, and the moment before they were requested, on this machine's monotonic clock."""

    csrf: bool
    result_storage: UUID | None
    at: float

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> ServerOptionsCache:
        """Read the message of the role's process."""
        storage = message["result_storage"]
        return cls(csrf=message["csrf"], result_storage=UUID(storage) if storage else None, at=message["at"])

    @property
    def fresh(self) -> bool:
        """Whether the options are young enough to be used."""
        return 0 <= time.monotonic() - self.at < FRESH_SECONDS

    def spare_token(self, client: SyncPrefectClient) -> bool:
        """Spare the client the request for a CSRF token if the server requires none; true if that was done.

        A server that has begun to require tokens responds with 403: see `want_token`.
        """
        inner: Any = client._client  # noqa: SLF001 - the typed client has no name for it
        if self.csrf or not self.fresh or not inner.enable_csrf_support:
            return False
        inner.enable_csrf_support = False
        return True

    def spare_storage(self) -> None:
        """Have the engine take the default storage from here as it prepares the flow, while the options are fresh.

        Code within the flow that asks for the default storage gets the server's response.
        """
        plain, awaited = (getattr(prefect.results, name, None) for name in _STORAGE)
        if plain is None or awaited is None:
            return

        def answer() -> UUID | None:
            return self.result_storage if self._counts() else plain()

        async def answer_later() -> UUID | None:
            return self.result_storage if self._counts() else await awaited()

        for name, function in zip(_STORAGE, (answer, answer_later), strict=True):
            setattr(prefect.results, name, function)

    def _counts(self) -> bool:
        return self.fresh and FlowRunContext.get() is None


def want_token(client: SyncPrefectClient) -> None:
    """Have the client request CSRF tokens again."""
    inner: Any = client._client  # noqa: SLF001 - as above
    inner.enable_csrf_support = True
