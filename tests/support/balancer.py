"""One address for several servers: each new connection goes to the next one that takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from typing_extensions import override

from tests.support.proxy import DIAL_SECONDS, Proxy


class Balancer(Proxy):
    """A TCP load balancer that asks nobody for their health: who takes no connection is passed over."""

    def __init__(self, targets: Sequence[tuple[str, int]], *, host: str = "127.0.0.1") -> None:
        super().__init__(targets[0], host=host)
        self._targets = list(targets)

    @override
    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        error: OSError = ConnectionRefusedError("none of the servers takes a connection")
        for _ in self._targets:
            self._targets.append(self._targets.pop(0))
            try:
                return await asyncio.wait_for(asyncio.open_connection(*self._targets[-1]), DIAL_SECONDS)
            except OSError as failed:
                error = failed
        raise error
