"""Connections of a command to the installation: the servers in the settings, or those of this home's ``sluice up``."""

from __future__ import annotations

import getpass
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from config.settings import Settings, load_settings
from events.errors import ConfigError
from services.common.prefect_probe import prefect_answers
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
"""How long a command waits for one response of Prefect; its own client would retry for minutes."""


@dataclass
class Session:
    """Connections and stores of one command, opened on first use and closed when the command ends.

    Their modules are imported on first use, too: a command that does not use one starts without it.
    """

    settings: Settings
    redis_url: str = field(repr=False)
    prefect_api_url: str
    prefect_auth_string: str | None = field(repr=False)
    stack: AsyncExitStack
    _prefect: PrefectApi | None = None

    @cached_property
    def redis(self) -> AsyncRedis:
        """The client of the installation's Redis."""
        client = connect(self.redis_url, self.settings.redis)
        self.stack.push_async_callback(client.aclose)
        return client

    @cached_property
    def history(self) -> History:
        """The history of events."""
        from services.store.events.history import History

        return History(self.redis, self.settings.history)

    @cached_property
    def known_events(self) -> KnownEvents:
        """The ids and sources of events, to find one by the beginning of its id."""
        from services.store.events.known_events import KnownEvents

        return KnownEvents(self.redis)

    @cached_property
    def submission(self) -> SignalSubmission:
        """Accepts signals, as the HTTP API does; queues their RQ jobs with a synchronous client, which RQ needs."""
        from services.signals.submission import SignalSubmission
        from services.store.connection import connect_sync
        from services.store.signals.signals import SignalStore

        rq_redis = connect_sync(self.redis_url, self.settings.redis)
        self.stack.callback(rq_redis.close)
        store = SignalStore(self.redis, self.settings.resumer)
        return SignalSubmission(store=store, rq_redis=rq_redis, limits=self.settings.limits.as_limits())

    @cached_property
    def file_returns(self) -> FileReturns:
        """Asks the listeners to bring back files from their archive folders, for a replay."""
        from services.store.files.returns import FileReturns

        return FileReturns(self.redis, journal=self.settings.journal, history=self.settings.history)

    @property
    def prefect_ui_url(self) -> str:
        """The address of Prefect's UI, for links."""
        return ui_url(self.prefect_api_url)

    async def prefect(self, *, patience_seconds: float | None = PATIENCE_SECONDS) -> PrefectApi:
        """Return Prefect's API, connected; importing its client takes a second.

        Raises `TransientError` at once if Prefect does not respond, and later for a call that takes longer than
        ``patience_seconds``. With None the server is not asked first, and calls have no such limit.
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
        """Return when Prefect responds. Raises `TransientError` if it does not within ``seconds``."""
        await prefect_answers(self.prefect_api_url, auth_string=self.prefect_auth_string, within_seconds=seconds)


@asynccontextmanager
async def open_session() -> AsyncIterator[Session]:
    """Open the installation that ``SLUICE_HOME``, ``SLUICE_REDIS_URL`` and ``PREFECT_API_URL`` describe.

    Nothing is connected yet. Prefect's address and password are put into the environment of this process, because
    Prefect's client reads them from there. Raises `ConfigError` if nothing runs on the home and the settings name no
    servers.
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
    """Raise `ConfigError`, with the most similar name, if the project has no such rule and no event matched one.

    A rule that was removed from the project is still accepted while the history has events that it matched.
    """
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
    """Return the whole id of the event whose id begins with ``given``. Raises `Refused` if several do."""
    from services.store.events.history import HISTORY

    return None if given is None else await session.known_events.whole_id(given, prefixes=(HISTORY,))


def login() -> str | None:
    """Return the login name of the user who runs the command; None if the system knows none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None
