"""Options of the Prefect server that the role's process reads on behalf of every run.

This saves three requests before the first line of a flow: one for a CSRF token, two for the default result storage.
"""

from __future__ import annotations

import time
from typing import Final

from prefect.client.orchestration import SyncPrefectClient
from prefect.context import FlowRunContext

from services.prefect_api.compat import answer_default_storage, http_client
from services.prefect_api.server_options import ServerOptions

FRESH_SECONDS: Final = 15.0
"""Options older than this are not used: the run asks the server itself."""


class ServerOptionsCache:
    """The server's options as one run process uses them; with None, it asks the server itself."""

    def __init__(self, options: ServerOptions | None) -> None:
        self._options = options
        self._token_spared = False

    def spare_requests(self, client: SyncPrefectClient) -> None:
        """Spare the client the request for a CSRF token if the server requires none, the engine those for the storage.

        A server that has begun to require tokens responds with 403: see `want_token`. Code within the flow that asks
        for the default storage gets the server's response.
        """
        if self._options is None:
            return
        inner = http_client(client)
        if self._fresh(self._options) and not self._options.csrf and inner.enable_csrf_support:
            inner.enable_csrf_support = False
            self._token_spared = True
        answer_default_storage(self._options.result_storage, counts=self._counts)

    def want_token(self, client: SyncPrefectClient) -> bool:
        """Have the client request CSRF tokens again; false if it was not spared one."""
        if self._token_spared:
            http_client(client).enable_csrf_support = True
        return self._token_spared

    def _counts(self) -> bool:
        return self._options is not None and self._fresh(self._options) and FlowRunContext.get() is None

    @staticmethod
    def _fresh(options: ServerOptions) -> bool:
        return 0 <= time.monotonic() - options.at < FRESH_SECONDS
