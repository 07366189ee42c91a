"""Options of the Prefect server that the role's process reads on behalf of every run.

This saves three requests before the first line of a flow: one for a CSRF token, two for the default result storage.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.context import FlowRunContext

from services.prefect_api.compat import answer_default_storage, http_client

FRESH_SECONDS: Final = 15.0
"""Options older than this are not used: the run asks the server itself."""


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
        inner = http_client(client)
        if self.csrf or not self.fresh or not inner.enable_csrf_support:
            return False
        inner.enable_csrf_support = False
        return True

    def spare_storage(self) -> None:
        """Have the engine take the default storage from here as it prepares the flow, while the options are fresh.

        Code within the flow that asks for the default storage gets the server's response.
        """
        answer_default_storage(self.result_storage, counts=self._counts)

    def _counts(self) -> bool:
        return self.fresh and FlowRunContext.get() is None


def want_token(client: SyncPrefectClient) -> None:
    """Have the client request CSRF tokens again."""
    http_client(client).enable_csrf_support = True
