"""The inspector of each role: moves data in Redis that parts could not read to quarantine, so that they go on."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import time
from collections.abc import Mapping
from typing import Any, Final

import structlog

import services.store
from config.settings import RoleName
from events.errors import Backpressure, TransientError
from services.common.backoff import Backoff, heed_cancellation
from services.store.access.role_rights import KEEPER, written_by
from services.store.connection import AsyncRedis
from services.store.events.event_history import now_ms
from services.store.inspection.key_inspection import KeyInspection
from services.store.inspection.looks import Looks
from services.store.keys import DEAD, Key, KeyList
from services.store.unreadable import noted

LOOK_SECONDS: Final = 0.5
TYPES_SECONDS: Final = 5.0
"""How often the types of keys with a fixed name are checked without a request."""

EVERYTHING_MS: Final = 3_600_000
"""How often all keys are checked without a request: some are counted and never read."""

_REST: Final = 5
_LONGEST_REST_MS: Final = 60_000
"""Rest between two checks of all keys, as a multiple of the check's duration, and its upper limit."""

_OWNERS_OUTSIDE_THE_STORE: Final = (
    "services.operations.health",
    "services.operations.in_prefect.feed_state",
    "services.operations.metric_totals",
    "services.job_queues.rq_keys",
)

log = structlog.get_logger()


def declared_keys() -> dict[str, tuple[Key, ...]]:
    """Return every key of Redis that Sluice uses, by the module that owns it."""
    names = [module.name for module in pkgutil.walk_packages(services.store.__path__, "services.store.")]
    modules = [importlib.import_module(name) for name in (*names, *_OWNERS_OUTSIDE_THE_STORE)]
    return {module.__name__: module.KEYS for module in modules if hasattr(module, "KEYS")}


class Inspector:
    """A part of every role; any number of instances may check the same keys at once.

    A role checks the keys that it may write, and touches no other; only the router, which may write all of Sluice's,
    checks everything. The others ask it to, also for a single key that is not theirs.
    """

    def __init__(self, redis: AsyncRedis, *, role: RoleName) -> None:
        self._looks = Looks(redis)
        self._checks_everything = role == KEEPER
        keys = [key for keys in declared_keys().values() for key in keys]
        self._declared = KeyList(keys)
        self._own = KeyList(written_by(role, keys))
        self._inspection = KeyInspection(redis, self._own)
        self._trouble = Backoff("look through Redis", first_seconds=0.5, longest_seconds=5)
        self._noted_ms = 0
        self._started_ms = now_ms()
        self._types_at = 0.0
        self._set_aside = 0

    async def run(self) -> None:
        """Check keys that parts could not read, until cancelled."""
        while True:
            keys, everything = noted.take()
            try:
                self._set_aside += await self._look(keys, everything=everything)
                self._trouble.worked()
            except (TransientError, Backpressure) as error:
                for key in keys:
                    noted.add(key)
                if everything:
                    noted.add(None)
                await self._trouble.after(error)
            await asyncio.sleep(LOOK_SECONDS)
            heed_cancellation()

    async def everything(self) -> None:
        """Check all keys, or have them checked, before a role ends for an unknown reason."""
        if self._checks_everything:
            self._set_aside += await self._inspection.everything()
        else:
            self._set_aside += await self._inspection.types()
            await self._looks.ask()

    def status(self) -> Mapping[str, Any]:
        """Number of keys and elements that this process moved to quarantine."""
        return {"set_aside": self._set_aside}

    async def _look(self, keys: set[bytes], *, everything: bool) -> int:
        """Examine the keys, and at intervals the types of all keys; return the number of entries put in quarantine.

        A key that this role may not write is left to the router, which is asked to look.
        """
        count = 0
        for key in sorted(keys, key=_index_of_letters_first):
            if self._own.of(key) is not None:
                count += await self._inspection.of(key)
            elif self._declared.of(key) is not None:
                everything = True  # the router may write it
        due = time.monotonic() >= self._types_at
        if everything or due:
            self._types_at = time.monotonic() + TYPES_SECONDS
            count += await self._inspection.types()
        if self._checks_everything:
            return count + await self._look_through_if_wanted(everything=everything, due=due)
        if everything:
            await self._looks.ask()
        return count

    async def _look_through_if_wanted(self, *, everything: bool, due: bool) -> int:
        """Check all keys where this process, another role or the time since the last such check asks for it."""
        if everything or due:
            wanted = await self._looks.wanted_ms()
            last = await self._looks.last_ms()
            if wanted > last or now_ms() - max(last, self._started_ms) > EVERYTHING_MS:
                self._noted_ms = self._noted_ms or max(wanted, last + 1)
        if everything:
            self._noted_ms = self._noted_ms or now_ms()
        return await self._look_through() if self._noted_ms else 0

    async def _look_through(self) -> int:
        """Check all keys, unless another process has done so since the request, or does so now."""
        if await self._looks.last_ms() > self._noted_ms:
            self._noted_ms = 0
            return 0
        began = now_ms()
        if not await self._looks.begin():
            return 0
        self._noted_ms = 0
        try:
            count = await self._inspection.everything()
        except BaseException:
            self._noted_ms = began
            raise
        took_ms = now_ms() - began
        await self._looks.end(began, rest_ms=min(_LONGEST_REST_MS, _REST * took_ms))
        log.info("checked all keys in redis", milliseconds=took_ms, set_aside=count)
        return count


def _index_of_letters_first(key: bytes) -> tuple[bool, bytes]:
    """Check the index of the letters first: while it is unreadable, no letter can be kept."""
    return key != DEAD.encode(), key
