"""What the role's process has asked the Prefect server on behalf of every run, so that runs need not ask it themselves.

Three requests fewer before the first line of a flow: one for a CSRF token, two for the server's default result storage.
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
"""An answer that is older counts for nothing: the run asks for itself."""

_STORAGE: Final = ("_read_server_default_result_storage_block_id", "_aread_server_default_result_storage_block_id")


@dataclass(frozen=True, slots=True)
class ServerOptionsCache:
    """The server's answers, and the moment before they were asked for, on the monotonic clock of this machine."""

    csrf: bool
    result_storage: UUID | None
    at: float

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> ServerOptionsCache:
        """As the role's process tells it."""
        storage = message["result_storage"]
        return cls(csrf=message["csrf"], result_storage=UUID(storage) if storage else None, at=message["at"])

    @property
    def fresh(self) -> bool:
        """Whether it may still be relied on."""
        return 0 <= time.monotonic() - self.at < FRESH_SECONDS

    def spare_token(self, client: SyncPrefectClient) -> bool:
        """Have the client not ask whether there are CSRF tokens, if there are none; true if that was done.

        A server that has begun to want them answers 403 then: see `want_token`.
        """
        inner: Any = client._client  # noqa: SLF001 - the typed client has no name for it
        if self.csrf or not self.fresh or not inner.enable_csrf_support:
            return False
        inner.enable_csrf_support = False
        return True

    def spare_storage(self) -> None:
        """Have the engine, as it prepares the flow, take the default storage from here while the answer is fresh.

        What asks within the flow is answered by the server.
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
    """Have the client ask for CSRF tokens after all."""
    inner: Any = client._client  # noqa: SLF001 - as above
    inner.enable_csrf_support = True
