"""The objects that the parts of one role process share: connections, stores, settings, and the claim to the state."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.logs import show_handlers_safely
from config.project import Project, project_root
from config.settings import Settings
from events.errors import Backpressure, ConfigError, TransientError
from events.event import Event
from services.common.backoff import Backoff
from services.common.telemetry import tracing
from services.operations.role import STOP_SECONDS, Part
from services.store.connection import AsyncRedis, SyncRedis, connect, connect_sync
from services.store.dead_letters import DeadLetters
from services.store.events.history import History
from services.store.events.journal import Appended, Journal
from services.store.files.returns import FileReturns
from services.store.state.installation import check_project, claim_state

if TYPE_CHECKING:
    from services.executor.pool.process_template import ProcessTemplate
    from services.prefect_api.client import PrefectApi
    from services.signals.submission import SignalSubmission


class Shared:
    """The shared objects; ``stack`` closes everything that is opened here."""

    def __init__(self, settings: Settings, project: Project, stack: AsyncExitStack) -> None:
        """Raises `ConfigError` for a server without an address."""
        missing = [
            f"{name} is not set: a role needs to know its {what}; `sluice up` starts one and sets it"
            for name, what, value in (
                ("SLUICE_REDIS_URL", "Redis", settings.redis_url),
                ("PREFECT_API_URL", "Prefect server", settings.prefect_api_url),
            )
            if value is None
        ]
        if missing:
            raise ConfigError(*missing)
        self.settings = settings
        self.project = project
        self.stack = stack
        self.instance = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.redis = self.connect()
        stack.push_async_callback(self.redis.aclose)
        self.state_claim = StateClaim(self.redis, project=project.name, folder=project_root(settings.config))
        self.dead_letters = DeadLetters(self.redis)
        self.history = History(self.redis, settings.history)
        self.journal = Journal(self.redis, settings.journal, consumer=self.instance)
        self.returns = FileReturns(self.redis, journal=settings.journal, history=settings.history)
        self.limits = settings.limits.as_limits()
        self.process_template: ProcessTemplate | None = None
        """The template that the executor's processes are forked from."""
        self._prefect: PrefectApi | None = None

    @property
    def redis_url(self) -> str:
        """The address of Redis."""
        return str(self.settings.redis_url)

    def connect(self) -> AsyncRedis:
        """Return a new client, for the caller alone."""
        return connect(self.redis_url, self.settings.redis)

    def connect_sync(self) -> SyncRedis:
        """Return a new blocking client, for RQ."""
        return connect_sync(self.redis_url, self.settings.redis)

    async def prefect(self) -> PrefectApi:
        """Prefect's API; its client is imported by the roles that need it."""
        if self._prefect is None:
            from services.prefect_api.client import connect as connect_prefect

            show_handlers_safely()  # also the handlers that Prefect made when it was imported
            self._prefect = await self.stack.enter_async_context(connect_prefect(check_version=True))
        return self._prefect

    def submission(self) -> SignalSubmission:
        """The submission of signals."""
        from services.signals.submission import SignalSubmission
        from services.store.signals.signals import SignalStore

        rq_redis = self.connect_sync()
        self.stack.callback(rq_redis.close)
        store = SignalStore(self.redis, self.settings.resumer)
        return SignalSubmission(store=store, rq_redis=rq_redis, limits=self.limits)

    def emit_for(self, listener: str) -> Callable[[Sequence[Event]], Awaitable[Sequence[Appended]]]:
        """Return the callable by which one listener appends events to the journal."""

        async def emit(events: Sequence[Event]) -> Sequence[Appended]:
            self.state_claim.demand()
            with tracing.receiving(listener, events) as traced:
                return await self.journal.append(traced, received=datetime.now(UTC).isoformat(), listener=listener)

        return emit


class StateClaim:
    """Part of every role that checks the state in Redis, and claims it, as soon as Redis can be reached."""

    def __init__(self, redis: AsyncRedis, *, project: str | None, folder: Path) -> None:
        self._redis = redis
        self._project = project
        self._folder = folder
        self._claimed = asyncio.Event()
        self._trouble = Backoff("look whose state this Redis holds", first_seconds=0.1, longest_seconds=1)

    async def attempt(self) -> None:
        """Try to claim the state.

        Raises `ConfigError`, with nothing changed, if a newer Sluice or another project has it; also `TransientError`
        and `Backpressure`.
        """
        await check_project(self._redis, self._project, self._folder)
        await claim_state(self._redis)
        self._trouble.worked()
        self._claimed.set()

    async def run(self) -> None:
        """Retry until the state is claimed, then do nothing until cancelled."""
        while not self._claimed.is_set():
            try:
                await self.attempt()
            except (TransientError, Backpressure) as error:
                await self._trouble.after(error)
        await asyncio.Event().wait()

    def status(self) -> Mapping[str, Any]:
        """Whether the state is known to be this program's and this project's."""
        return {"ready": self._claimed.is_set()}

    def demand(self) -> None:
        """Raise `TransientError` until the state is claimed."""
        if not self._claimed.is_set():
            raise TransientError("Redis has not been reached yet, so it is unknown whose state it holds")

    def before(self, part: Part) -> Part:
        """Return ``part`` so that it begins once the state is claimed."""
        return part if self._claimed.is_set() else _Afterwards(part, self._claimed)


class _Afterwards:
    def __init__(self, part: Part, claimed: asyncio.Event) -> None:
        self._part = part
        self._claimed = claimed
        self.status = part.status
        self.stop_seconds = float(getattr(part, "stop_seconds", STOP_SECONDS))

    async def run(self) -> None:
        await self._claimed.wait()
        await self._part.run()
