"""The composition root: the one place where the parts of each role are built and joined.

Reading it from top to bottom is reading the architecture: listeners emit into the journal; the router asks the rules
and hands runs to the dispatcher and signals to their submission; the run state tracker publishes how events ended; the
file archiver reads that; the resumer applies signals; the executor runs flows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from config.logs import show_handlers_safely
from config.project import Project, load_project
from config.settings import Settings
from config.sources import RedisSource
from events.errors import Backpressure, ConfigError, TransientError
from events.event import RESUME, Event
from events.signal import ResumeSignal
from services.home.home import PRIVATE_UMASK, Home
from services.listeners.message_intake import MessageIntake, event_intake, signal_intake
from services.operations.inspector import Inspector
from services.operations.role import Part, run_loop, run_parts
from services.routing.rules_reload import LiveProject
from services.store.connection import AsyncRedis, SyncRedis, connect, connect_sync
from services.store.dead_letters import DeadLetters
from services.store.events.history import History
from services.store.events.journal import Appended, Journal
from services.store.lease import Lease

if TYPE_CHECKING:
    from services.executor.pool.process_template import ProcessTemplate
    from services.prefect_api.client import PrefectApi
    from services.signals.submission import SignalSubmission
    from services.store.event_transitions import EventTransitions
    from services.store.rules.parked_events import ParkedEvents
    from services.store.rules.windows import WindowStore

EVENTS: Final = "sluice.events"
TRIM_SECONDS: Final = 86_400.0
"""How long acknowledged entries stay in the streams that Sluice itself opens."""
DISPATCH_LEASE_SECONDS: Final = 5.0

LAST_LOOK_SECONDS: Final = 5.0
"""How long a role that fails may look for what it failed on."""

Parts = dict[str, Part]


def run_role(role: str, settings: Settings) -> None:
    """Run one role until SIGTERM.

    Raises `ConfigError` for a configuration that cannot be used, before anything is connected.
    """
    project = load_project(settings.config, home=settings.home)
    os.umask(int(settings.executor.umask, 8) if role == "executor" else PRIVATE_UMASK)
    process_template = _process_template() if role == "executor" and settings.executor.mode == "fork" else None
    try:
        run_loop(_run(role, settings, project, process_template))
    finally:
        if process_template is not None:
            process_template.close()


def _process_template() -> ProcessTemplate | None:
    from services.executor.pool.process_template import ProcessTemplate

    return ProcessTemplate.fork()


async def _run(role: str, settings: Settings, project: Project, process_template: ProcessTemplate | None) -> None:
    async with AsyncExitStack() as stack:
        shared = Shared(settings, project, stack)
        shared.process_template = process_template
        inspector = Inspector(shared.redis)
        parts = {**await _ROLES[role](shared), "inspector": inspector}
        try:
            await run_parts(role, parts, redis=shared.redis)
        except RuntimeError:
            # What a part failed on may stand in Redis, where its next process would fail on it again.
            with contextlib.suppress(TransientError, Backpressure, TimeoutError):
                await asyncio.wait_for(inspector.everything(), LAST_LOOK_SECONDS)
            raise


class Shared:
    """What the parts of one process have in common."""

    def __init__(self, settings: Settings, project: Project, stack: AsyncExitStack) -> None:
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
        self.dead_letters = DeadLetters(self.redis)
        self.history = History(self.redis, settings.history)
        self.journal = Journal(self.redis, settings.journal, consumer=self.instance)
        self.limits = settings.limits.as_limits()
        self.process_template: ProcessTemplate | None = None
        """What the executor's processes are forked from."""
        self._prefect: PrefectApi | None = None

    @property
    def redis_url(self) -> str:
        """The address of Redis."""
        return str(self.settings.redis_url)

    def connect(self) -> AsyncRedis:
        """A client of one's own."""
        return connect(self.redis_url, self.settings.redis)

    def connect_sync(self) -> SyncRedis:
        """A blocking client, for RQ."""
        return connect_sync(self.redis_url, self.settings.redis)

    async def prefect(self) -> PrefectApi:
        """Prefect's API; its client is imported by the roles that need it."""
        if self._prefect is None:
            from services.prefect_api.client import connect as connect_prefect

            show_handlers_safely()  # those that Prefect has made as it was imported
            self._prefect = await self.stack.enter_async_context(connect_prefect(check_version=True))
        return self._prefect

    def submission(self) -> SignalSubmission:
        """Where signals are handed in."""
        from services.signals.submission import SignalSubmission
        from services.store.signals.signals import SignalStore

        rq_redis = self.connect_sync()
        self.stack.callback(rq_redis.close)
        store = SignalStore(self.redis, self.settings.resumer)
        return SignalSubmission(store=store, rq_redis=rq_redis, limits=self.limits)

    def emit_for(self, listener: str) -> Callable[[Sequence[Event]], Awaitable[Sequence[Appended]]]:
        """The journal's door for one listener."""

        async def emit(events: Sequence[Event]) -> Sequence[Appended]:
            return await self.journal.append(events, received=datetime.now(UTC).isoformat(), listener=listener)

        return emit


async def _listeners(shared: Shared) -> Parts:
    from services.listeners.redis.source import listener_name, redis_listeners

    settings, sources = shared.settings, shared.project.sources
    parts: Parts = {"project": LiveProject(shared.project, home=settings.home, sources_matter=True)}
    if sources.files:
        parts |= await _files(shared)
    open_listeners = partial(redis_listeners, redis=shared.redis, connect=shared.connect, settings=settings.listeners)
    submit = shared.submission().submit
    for name, source in _with_defaults(sources.redis).items():
        listener = listener_name(name)
        intake: MessageIntake[Any]
        if source.carries == "signals":
            intake = signal_intake(
                listener=listener,
                submit=partial(submit, origin=listener),
                dead=shared.dead_letters,
                limits=shared.limits,
            )
        else:
            intake = event_intake(
                listener=listener,
                emit=shared.emit_for(listener),
                dead=shared.dead_letters,
                limits=shared.limits,
                default_type=source.type,
            )
        parts |= open_listeners(name, source, intake=intake)
    return parts


def _with_defaults(sources: Mapping[str, RedisSource]) -> Mapping[str, RedisSource]:
    """`sluice.resume` and `sluice.events` are heard (as channel and stream) unless the project says otherwise."""
    found = dict(sources)
    if not any(source.carries == "signals" for source in sources.values()):
        found[RESUME] = RedisSource(channel=RESUME, stream=RESUME, carries="signals", trim_after_seconds=TRIM_SECONDS)
    if not any(EVENTS in (source.channel, source.stream) for source in sources.values()):
        found[EVENTS] = RedisSource(channel=EVENTS, stream=EVENTS, trim_after_seconds=TRIM_SECONDS)
    return found


async def _files(shared: Shared) -> Parts:
    from services.listeners.files.archiving.archiver import FileArchiver
    from services.listeners.files.listener import FilesListener
    from services.store.events.finished_events import FinishedEvents
    from services.store.files.ledger import Ledger

    settings, redis, sources = shared.settings, shared.redis, shared.project.sources.files
    ledger = Ledger(redis, settings.journal, settings.files)
    listeners = {
        name: FilesListener(
            name=name, source=source, settings=settings.files, ledger=ledger, backoff=settings.listeners
        )
        for name, source in sources.items()
    }
    archiver = FileArchiver(
        sources=sources,
        settings=settings.files,
        ledger=ledger,
        finished=FinishedEvents(redis, consumer=f"files-{socket.gethostname()}-{os.getpid()}"),
        turn=lambda right: Lease(redis, right, ttl_seconds=10),
        rescan=lambda name: listeners[name].rescan(),
        backoff=settings.listeners,
    )
    parts: Parts = {f"files:{name}": listener for name, listener in listeners.items()}
    return parts | {"archiver": archiver}


async def _router(shared: Shared) -> Parts:
    from services.operations.event_repair import EventRepair
    from services.prefect_api.signatures import check_with_prefect
    from services.routing.poison_check import ends_its_judge
    from services.routing.router import Router
    from services.routing.rule_windows import RuleWindows
    from services.store.event_transitions import EventTransitions
    from services.store.events.verdict_lines import VerdictLines
    from services.store.rules.parked_events import ParkedEvents
    from services.store.rules.rules_in_force import RulesInForce
    from services.store.rules.windows import WindowStore

    settings, redis, prefect = shared.settings, shared.redis, await shared.prefect()
    live = LiveProject(
        shared.project,
        home=settings.home,
        check=lambda project: check_with_prefect(project, prefect),
        publish=RulesInForce(redis).put,
    )
    submission = shared.submission()

    async def submit(signal: ResumeSignal) -> None:
        await submission.submit(signal)

    transitions = EventTransitions(redis, retention_seconds=settings.history.retention_seconds, run_url=prefect.run_url)
    window_store = WindowStore(redis, seen_seconds=settings.journal.seen_seconds)
    windows = RuleWindows(
        rules=live.rules,
        store=window_store,
        journal=shared.journal,
        transitions=transitions,
        dead_letters=shared.dead_letters,
        submit_signal=submit,
    )
    parked = ParkedEvents(redis)
    router = Router(
        journal=shared.journal,
        judge=live.judge,
        lines=VerdictLines(redis, settings.history),
        handover=transitions,
        parked=parked,
        dead_letters=shared.dead_letters,
        submit_signal=submit,
        windows=windows,
        poison_check=lambda event: ends_its_judge(event, live.project, home=settings.home),
    )
    return {
        "rules": live,
        "router": router,
        "windows": windows,
        **_dispatch(shared, prefect, live, transitions),
        "retention": _retention(shared, window_store, parked),
        "repair": EventRepair(redis, prefect=prefect),
    }


def _dispatch(shared: Shared, prefect: PrefectApi, live: LiveProject, transitions: EventTransitions) -> Parts:
    """From decided runs to runs in Prefect, and their states back."""
    from services.dispatch.announcer import Announcer
    from services.dispatch.dispatcher import Dispatcher
    from services.dispatch.run_creator import RunCreator
    from services.runs.run_state_tracker import RunStateTracker
    from services.store.rules.rule_usage import RuleUsages
    from services.store.runs.created_runs import CreatedRuns
    from services.store.runs.dispatch_queues import DispatchQueues

    settings, redis = shared.settings, shared.redis
    announcer = Announcer(prefect=prefect, busy=lambda: dispatcher.busy)
    creator = RunCreator(
        prefect=prefect,
        transitions=transitions,
        journal=shared.journal,
        dead_letters=shared.dead_letters,
        announcer=announcer,
        rules=live.rules,
        settings=settings.dispatcher,
    )
    dispatcher = Dispatcher(
        queues=DispatchQueues(redis),
        paces=RuleUsages(redis),
        lease=Lease(redis, "dispatch", ttl_seconds=DISPATCH_LEASE_SECONDS),
        rules=live.rules,
        calls=creator,
        rules_version=lambda: live.project.version,
        rejudge=transitions.rejudge,
        settings=settings.dispatcher,
    )
    tracker = RunStateTracker(prefect=prefect, recorder=transitions, runs=CreatedRuns(redis), history=shared.history)
    return {"dispatcher": dispatcher, "announcer": announcer, "outcomes": tracker}


def _retention(shared: Shared, windows: WindowStore, parked: ParkedEvents) -> Part:
    """Nothing is trimmed away that a dispatch queue, a window or a parked event still needs."""
    from services.operations.retention_job import LEASE_SECONDS, RetentionJob
    from services.store.runs.dispatch_queues import DispatchQueues

    stores = (DispatchQueues(shared.redis), windows, parked)

    async def needed() -> list[str]:
        return [position for store in stores for position in await store.oldest_positions()]

    return RetentionJob(
        redis=shared.redis,
        needed=needed,
        lease=Lease(shared.redis, "retention", ttl_seconds=LEASE_SECONDS),
        journal=shared.settings.journal,
        history=shared.settings.history,
    )


async def _resumer(shared: Shared) -> Parts:
    from services.signals.resumer import build_resumer

    resumer = build_resumer(
        redis=shared.redis,
        connect_rq=shared.connect_sync,
        api=await shared.prefect(),
        settings=shared.settings.resumer,
        dead=shared.dead_letters,
        history=shared.history,
        instance=shared.instance,
        project=shared.project.name,
    )
    return dict(resumer.parts())


async def _executor(shared: Shared) -> Parts:
    from services.executor.executor import Executor

    settings = shared.settings
    executor = Executor(
        settings=settings.executor,
        prefect=await shared.prefect(),
        redis_url=shared.redis_url,
        redis_settings=settings.redis,
        log_settings=settings.log,
        home=settings.home,
        folders=shared.project.watched_folders,
        process_template=shared.process_template,
        contracts=shared.project.contract_sources,
    )
    return {"project": LiveProject(shared.project, home=settings.home, sources_matter=True), "executor": executor}


async def _api(shared: Shared) -> Parts:
    from services.home.access import find_access
    from services.listeners.http.listener import HttpListener
    from services.operations.metrics_page import scrape
    from services.operations.readiness import CachedReadiness, read_readiness

    settings = shared.settings
    token = settings.api.token or _token_of_home(settings)
    readiness = CachedReadiness(
        partial(
            read_readiness,
            shared.redis,
            prefect_url=str(settings.prefect_api_url),
            prefect_auth=find_access(settings).prefect_auth_string,
            expected=settings.expected_roles,
        )
    )
    http = HttpListener(
        settings=settings.api.model_copy(update={"token": token}),
        allowed_hosts=settings.allowed_hosts,
        trusts_own_user=settings.api.token is None,
        port=settings.ports.api,
        limits=shared.limits,
        sources=shared.project.sources.http,
        emit_for=shared.emit_for,
        submit=partial(shared.submission().submit, origin="http:signals"),
        dead=shared.dead_letters,
        readiness=readiness.read,
        scrape=partial(scrape, flows=settings.home / "metrics"),
    )
    return {"project": LiveProject(shared.project, home=settings.home, sources_matter=True), "http": http}


def _token_of_home(settings: Settings) -> str | None:
    """What the API asks for when no token is set; raises `ConfigError` where each instance must be told."""
    if settings.open:
        return None
    if settings.env != "development":
        raise ConfigError(
            f"SLUICE_API__TOKEN is not set, and outside development (SLUICE_ENV is {settings.env}) the API wants one:"
            " set the same on every instance, for example to what `openssl rand -hex 24` prints"
        )
    return Home(settings.home).credentials().api_token


_ROLES: Final[Mapping[str, Callable[[Shared], Awaitable[Parts]]]] = {
    "listeners": _listeners,
    "router": _router,
    "resumer": _resumer,
    "executor": _executor,
    "api": _api,
}
