"""What a Prefect server asks of its clients and offers them, the same for every flow run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from events.errors import NotFound, RejectedEvent
from services.prefect_api.client import PrefectApi

_DISABLED: Final = "CSRF protection is disabled"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Of a server that knows neither of the two, the answers are no and none."""

    csrf: bool
    """Whether each client must ask for a token before it may change anything."""
    result_storage: str | None
    """The id of the block in which results go where nothing else is said."""


async def read_server_options(api: PrefectApi, *, client: str) -> ServerOptions:
    """Ask the server; ``client`` is the name under which it keeps the token that it may make.

    Raises what `PrefectApi.request` raises.
    """
    return ServerOptions(csrf=await _csrf(api, client), result_storage=await _result_storage(api))


async def _csrf(api: PrefectApi, client: str) -> bool:
    try:
        await api.request("GET", "/csrf-token", params={"client": client})
    except NotFound:
        return False
    except RejectedEvent as error:
        if _DISABLED not in str(error):
            raise
        return False
    return True


async def _result_storage(api: PrefectApi) -> str | None:
    try:
        found = await api.request("GET", "/admin/storage")
    except NotFound:
        return None
    storage = found.get("default_result_storage_block_id")
    return str(storage) if storage else None
