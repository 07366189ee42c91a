"""An HTTP listener as a real server on loopback, with the real journal behind it, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from config.api import ApiSettings
from config.sources import HttpSource
from events.signal import ResumeSignal
from events.untrusted_json import Limits
from services.common.reasons import reason
from services.listeners.http.bodies import CLOUDEVENT
from services.listeners.http.listener import HttpListener
from services.operations.readiness import Readiness, RoleReadiness
from services.store.connection import AsyncRedis
from tests.support.sources import Door, Letters, running
from tests.support.waiting import eventually

LIMITS = Limits(max_bytes=4096, max_depth=16)


QUICK = ApiSettings(
    header_timeout_seconds=0.3, body_timeout_seconds=0.3, journal_timeout_seconds=0.3, max_batch_bytes=8192
)


HEAD = b"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


class Site:
    """A running HTTP listener and what it led to."""

    def __init__(self, redis: AsyncRedis, settings: ApiSettings = QUICK, **more: Any) -> None:
        self.door = Door(redis)
        self.letters = Letters()
        self.signals: list[ResumeSignal] = []
        self.is_ready = True
        self.listener = HttpListener(
            settings=settings,
            port=0,
            limits=LIMITS,
            sources={"orders": HttpSource(type="order.message")},
            emit_for=lambda listener: self.door.emit,
            submit=self._submit,
            dead=self.letters,
            readiness=self._readiness,
            scrape=self._scrape,
            **more,
        )

    async def _scrape(self, readiness: Readiness) -> bytes:
        return f"sluice_ready {readiness.ready:d}\n".encode()

    async def _submit(self, signal: ResumeSignal) -> None:
        self.signals.append(signal)

    async def _readiness(self) -> Readiness:
        slow = reason("retrying", "files:inbox: /data/inbox is slow", role="listeners")
        reasons = (slow,) if self.is_ready else (reason("rule-held", "because"), slow)
        return Readiness(reasons, {"listeners": RoleReadiness(True, None, (slow,), (), ())})


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with running(site.listener):
        await eventually(lambda: _listens(site))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.listener.port}", timeout=60) as client:
            yield client


async def _listens(site: Site) -> bool:
    return bool(site.listener.port)


async def post(client: httpx.AsyncClient, path: str, body: bytes, kind: str = CLOUDEVENT, **headers: str) -> Any:
    return await client.post(path, content=body, headers={"content-type": kind, **headers})
