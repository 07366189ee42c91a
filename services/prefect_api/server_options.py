"""Options of a Prefect server that are the same for every flow run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from events.errors import NotFound
from services.prefect_api.client import PrefectApi, PrefectRefused

_DISABLED: Final = "CSRF protection is disabled"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options; a server without these features has no tokens and no storage."""

    csrf: bool
    """Whether a client must request a token before it may change anything."""
    result_storage: UUID | None
    """The default block for results."""
    at: float
    """The moment before the server was asked, on this machine's monotonic clock."""


async def read_server_options(api: PrefectApi, *, client: str) -> ServerOptions:
    """Read them; ``client`` is the name under which the server stores a token.

    Raises what `PrefectApi.request` raises.
    """
    at = time.monotonic()
    return ServerOptions(csrf=await _csrf(api, client), result_storage=await _result_storage(api), at=at)


async def _csrf(api: PrefectApi, client: str) -> bool:
    """Return whether the server requires CSRF tokens."""
    try:
        await api.request("GET", "/csrf-token", params={"client": client})
    except NotFound:
        return False
    except PrefectRefused as error:
        if _DISABLED not in error.said:
            raise
        return False
    return True


async def _result_storage(api: PrefectApi) -> UUID | None:
    try:
        found = await api.request("GET", "/admin/storage")
    except NotFound:
        return None
    storage = found.get("default_result_storage_block_id")
    return UUID(storage) if storage else None
