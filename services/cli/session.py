"""How a command reaches the installation: the servers that the settings name, or those of this home's ``sluice up``."""

from __future__ import annotations

import asyncio
import getpass
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from config.settings import Settings, load_settings
from events.errors import ConfigError, TransientError
from services.common.prefect_probe import prefect_problem
from services.home.access import find_access
from services.home.home import ui_url
from services.store.connection import AsyncRedis, connect

if TYPE_CHECKING:
    from services.prefect_api.client import PrefectApi
    from services.signals.submission import SignalSubmission
    from services.store.events.history import History
    from services.store.events.known_events import KnownEvents
    from services.store.files.returns import FileReturns


PATIENCE_SECONDS: Final = 10.0
"""How long a command waits for one answer of Prefect."""


@dataclass
class Session:
    """What a command needs, opened when it is first asked for and closed with the command.

    Its parts are imported with their first use: a command that does not need one starts without it.
    """

    settings: Settings
    redis_url: str = field(repr=False)
    prefect_api_url: str
    prefect_auth_string: str | None = field(repr=False)
    stack: AsyncExitStack
    _prefect: PrefectApi | None = None

    @cached_property
    def redis(self) -> AsyncRedis:
        """The client on the installation's Redis."""
        client = connect(self.redis_url, self.settings.redis)
        self.stack.push_async_callback(client.aclose)
        return client

    @cached_property
    def history(self) -> History:
        """What became of events."""
        from services.store.events.history import History

        return History(self.redis, self.settings.history)

    @cached_property
    def known_events(self) -> KnownEvents:
        """The ids and sources of events."""
        from services.store.events.known_events import KnownEvents

        return KnownEvents(self.redis)

    @cached_property
    def submission(self) -> SignalSubmission:
        """Where signals are handed in."""
        from services.signals.submission import SignalSubmission
        from services.store.connection import connect_sync
        from services.store.signals.signals import SignalStore

        rq_redis = connect_sync(self.redis_url, self.settings.redis)
        self.stack.callback(rq_redis.close)
        store = SignalStore(self.redis, self.settings.resumer)
        return SignalSubmission(store=store, rq_redis=rq_redis, limits=self.settings.limits.as_limits())

    @cached_property
    def file_returns(self) -> FileReturns:
        """Where files are asked for that are to be tried again."""
        from services.store.files.returns import FileReturns

        return FileReturns(self.redis, journal=self.settings.journal, history=self.settings.history)

    @property
    def prefect_ui_url(self) -> str:
        """Where a person looks."""
        return ui_url(self.prefect_api_url)

    async def prefect(self, *, patience_seconds: float | None = PATIENCE_SECONDS) -> PrefectApi:
        """Prefect's API; importing its client takes a second, so only the commands that need it ask.

        Raises `TransientError` at once where Prefect does not answer, and for a call that takes longer than
        ``patience_seconds``: Prefect's own client would try for minutes. With None nothing is asked and awaited.
        """
        if self._prefect is None:
            if patience_seconds is not None:
                await self.wait_for_prefect(0)
            from services.prefect_api.client import connect as connect_prefect

            auth = self.prefect_auth_string
            self._prefect = await self.stack.enter_async_context(
                connect_prefect(self.prefect_api_url, auth_string=auth, patience_seconds=patience_seconds)
            )
        return self._prefect

    async def wait_for_prefect(self, seconds: float) -> None:
        """Return when Prefect answers. Raises `TransientError` if it does not within ``seconds``."""
        await prefect_answers(self.prefect_api_url, auth_string=self.prefect_auth_string, within_seconds=seconds)


async def prefect_answers(url: str, *, auth_string: str | None, within_seconds: float = 0.0) -> None:
    """Return when the Prefect server answers. Raises `TransientError` if it does not, asked at least once."""
    deadline = time.monotonic() + within_seconds
    while why := await asyncio.to_thread(prefect_problem, url, auth_string=auth_string):
        if time.monotonic() >= deadline:
            raise TransientError(f"the Prefect server at {url} {why}: `sluice status` says more")
        await asyncio.sleep(0.05)


@asynccontextmanager
async def open_session() -> AsyncIterator[Session]:
    """The installation that ``SLUICE_HOME``, ``SLUICE_REDIS_URL`` and ``PREFECT_API_URL`` describe.

    Raises `ConfigError` when nothing runs on the home and the settings name no servers.
    """
    settings = load_settings()
    access = find_access(settings)
    redis_url, prefect = access.redis_url, access.prefect_api_url
    if redis_url is None or prefect is None:
        missing = "SLUICE_REDIS_URL" if redis_url is None else "PREFECT_API_URL"
        msg = f"nothing runs on {settings.home}: start `sluice up`, or set {missing} (or SLUICE_HOME) to reach another"
        raise ConfigError(msg)
    os.environ.update(access.for_prefect())  # read by Prefect's client when it is first imported
    async with AsyncExitStack() as stack:
        yield Session(settings, redis_url, prefect, access.prefect_auth_string, stack)


async def demand_rule(session: Session, rule: str | None) -> None:
    """Raise `ConfigError`, with the name that is nearest, for a rule that the project has not and no event matched."""
    from config.project import load_project
    from events.suggest import did_you_mean
    from services.store.events.history import MATCHED_BY

    if rule is None:
        return
    if await session.redis.exists(MATCHED_BY + rule):
        return
    project = load_project(session.settings.config, home=session.settings.home)
    names = [one.spec.name for one in project.rules.rules]
    if rule not in names:
        raise ConfigError(f"--rule {rule!r}: {project.path} has no such rule: {did_you_mean(rule, names)}")


async def whole_event_id(session: Session, given: str | None) -> str | None:
    """The id of the event that ``--event`` means, where its beginning was given. Raises `Refused`."""
    from services.store.events.history import HISTORY

    return None if given is None else await session.known_events.whole_id(given, prefixes=(HISTORY,))


def login() -> str | None:
    """The name of whoever runs the command, where the system knows one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None
