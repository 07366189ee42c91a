"""The composition root: the one place where the parts of each role are built and joined.

Reading it from top to bottom is reading the architecture: listeners emit into the journal; the router asks the rules
and hands runs to the dispatcher and signals to their submission; the run state tracker publishes how events ended; the
file archiver reads that; the resumer applies signals; the executor runs flows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from config.canary import canary_rules, canary_stream
from config.certificates import tls_files
from config.project import Project, load_project
from config.settings import RoleName, Settings
from events.errors import Backpressure, ConfigError, TransientError
from services.home.home import PRIVATE_UMASK
from services.listeners.message_intake import MessageIntake, event_intake, signal_intake
from services.operations.certificate_watch import CertificateWatch
from services.operations.role import Part, run_loop, run_parts
from services.operations.upkeep.inspector import Inspector
from services.routing.rules_reload import LiveProject
from services.shared import Shared
from services.store.lease import Lease

if TYPE_CHECKING:
    from services.executor.pool.process_template import ProcessTemplate
    from services.home.access import Access
    from services.operations.metrics_page import ProjectNames
    from services.operations.readiness import CachedReadiness
    from services.prefect_api.client import PrefectApi
    from services.routing.decisions import PoisonCheck
    from services.store.event_transitions import EventTransitions
    from services.store.rules.parked_events import ParkedEvents
    from services.store.rules.windows import WindowStore
    from services.store.runs.dispatch_queues import DispatchQueues

LAST_LOOK_SECONDS: Final = 5.0
"""How long a role that fails may inspect Redis for the data that it failed on."""

Parts = dict[str, Part]


def run_role(role: RoleName, settings: Settings, *, project: Project | None = None) -> None:
    """Run one role until SIGTERM, with the ``project``, or what the file that the settings name holds.

    Raises `ConfigError` for a configuration that cannot be used, and where this Redis holds another project or the
    state of a newer Sluice.
    """
    project = project or load_project(settings.config, home=settings.home)
    os.umask(int(settings.executor.umask, 8) if role == "executor" else PRIVATE_UMASK)
    process_template = None
    if role == "executor" and settings.executor.mode == "fork":
        from services.executor.pool.process_template import ProcessTemplate

        process_template = ProcessTemplate.fork()  # before this process has threads or connections
    try:
        run_loop(_run(role, settings, project, process_template))
    finally:
        if process_template is not None:
            process_template.close()


async def _run(role: RoleName, settings: Settings, project: Project, process_template: ProcessTemplate | None) -> None:
    async with AsyncExitStack() as stack:
        shared = Shared(settings, project, stack)
        shared.process_template = process_template
        with contextlib.suppress(TransientError, Backpressure):  # the role waits for a Redis that does not answer
            await shared.state_claim.attempt()
        inspector = Inspector(shared.redis, role=role)
        parts = {**await _ROLES[role](shared), "inspector": inspector}
        # HTTP answers 503 meanwhile.
        parts = {name: part if name == "http" else shared.state_claim.before(part) for name, part in parts.items()}
        parts["state"] = shared.state_claim
        if files := tls_files(settings, os.environ):
            parts["certificates"] = CertificateWatch(files)
        try:
            await run_parts(role, parts, redis=shared.redis, ready_file=settings.ready_file, home=settings.home)
        except RuntimeError as error:
            if isinstance(error.__cause__, ConfigError):
                raise error.__cause__ from None
            # The data that a part failed on may still be in Redis, where the next process would fail on it again.
            with contextlib.suppress(TransientError, Backpressure, TimeoutError):
                await asyncio.wait_for(inspector.everything(), LAST_LOOK_SECONDS)
            raise


async def _listeners(shared: Shared) -> Parts:
    from services.listeners.file_parts import file_parts
    from services.listeners.redis.source import listener_name, redis_listeners

    settings, sources = shared.settings, shared.project.sources
    parts: Parts = {"project": LiveProject(shared.project, home=settings.home, sources_matter=True)}
    canary = settings.canary_in_force
    parts |= file_parts(
        sources.files,
        settings=settings,
        redis=shared.redis,
        history=shared.history,
        returns=shared.returns,
        instance=shared.instance,
    )
    open_listeners = partial(redis_listeners, redis=shared.redis, connect=shared.connect, settings=settings.listeners)
    submit = shared.submission().submit
    project = shared.project.name if settings.redis.shared else None
    for name, source in (sources.redis_with_defaults(project=project) | (canary_stream() if canary else {})).items():
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


async def _router(shared: Shared) -> Parts:
    from services.deployments.signatures import check_with_prefect
    from services.operations.in_prefect.parts import in_prefect
    from services.operations.upkeep.event_repair import EventRepair
    from services.operations.upkeep.retention_job import LEASE_SECONDS, RetentionJob
    from services.runs.canary_cleaner import CanaryCleaner
    from services.store.event_transitions import EventTransitions
    from services.store.rules.parked_events import ParkedEvents
    from services.store.rules.rules_in_force import RulesInForce
    from services.store.rules.windows import WindowStore
    from services.store.runs.dispatch_queues import DispatchQueues

    settings, redis, prefect = shared.settings, shared.redis, await shared.prefect()
    live = LiveProject(
        shared.project,
        home=settings.home,
        check=partial(check_with_prefect, api=prefect),
        publish=RulesInForce(redis).put,
        canary=canary_rules(settings.canary_in_force, project=shared.project.name)
        if settings.canary_in_force
        else None,
    )
    transitions = EventTransitions(redis, retention_seconds=settings.history.retention_seconds, run_url=prefect.run_url)
    queues, parked = DispatchQueues(redis), ParkedEvents(redis)
    window_store = WindowStore(redis, seen_seconds=settings.journal.seen_seconds)
    retention = RetentionJob(
        redis=redis,
        stores=(queues, window_store, parked),
        lease=Lease(redis, "retention", ttl_seconds=LEASE_SECONDS),
        journal=settings.journal,
        history=settings.history,
    )
    return {
        "rules": live,
        **routing_parts(shared, live, transitions, window_store, parked),
        **dispatch_parts(shared, prefect, live, transitions, queues),
        **in_prefect(redis, prefect, settings=settings, project=shared.project.name),
        "retention": retention,
        "repair": EventRepair(redis, prefect=prefect),
        "canary": CanaryCleaner(redis, prefect=prefect),
    }


def routing_parts(
    shared: Shared,
    live: LiveProject,
    transitions: EventTransitions,
    window_store: WindowStore,
    parked: ParkedEvents,
    *,
    poison_check: PoisonCheck | None = None,
) -> Parts:
    """Build the parts that turn journalled events into decisions."""
    from services.routing.router import Router
    from services.routing.rule_windows import RuleWindows
    from services.store.events.verdict_lines import VerdictLines

    submission = shared.submission()
    windows = RuleWindows(
        rules=live.rules,
        store=window_store,
        journal=shared.journal,
        transitions=transitions,
        dead_letters=shared.dead_letters,
        submit_signal=submission.submit,
    )
    router = Router(
        journal=shared.journal,
        judge=live.judge,
        lines=VerdictLines(shared.redis, shared.settings.history),
        handover=transitions,
        parked=parked,
        dead_letters=shared.dead_letters,
        submit_signal=submission.submit,
        windows=windows,
        poison_check=poison_check or live.end_of_evaluation,
    )
    return {"router": router, "windows": windows}


def dispatch_parts(
    shared: Shared, prefect: PrefectApi, live: LiveProject, transitions: EventTransitions, queues: DispatchQueues
) -> Parts:
    """Build the parts that create decided runs in Prefect and follow their states."""
    from services.dispatch.announcer import Announcer
    from services.dispatch.dispatcher import LEASE_SECONDS, Dispatcher
    from services.dispatch.run_creator import RunCreator
    from services.runs.run_state_tracker import RunStateTracker
    from services.store.rules.rule_usage import RuleUsages

    settings, redis = shared.settings, shared.redis
    announcer = Announcer(prefect=prefect)
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
        queues=queues,
        paces=RuleUsages(redis),
        lease=Lease(redis, "dispatch", ttl_seconds=LEASE_SECONDS),
        rules=live.rules,
        calls=creator,
        rules_version=live.version,
        rejudge=transitions.rejudge,
        settings=settings.dispatcher,
    )
    announcer.give_way(dispatcher.is_busy)
    tracker = RunStateTracker(prefect=prefect, recorder=transitions, history=shared.history, returns=shared.returns)
    return {"dispatcher": dispatcher, "announcer": announcer, "outcomes": tracker}


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
        held_seconds=settings.health.slots_held_seconds,
        contracts=shared.project.contract_sources,
    )
    return {"project": LiveProject(shared.project, home=settings.home, sources_matter=True), "executor": executor}


async def _api(shared: Shared) -> Parts:
    from services.api.build import build_routers
    from services.home.access import find_access, required_token
    from services.listeners.http.endpoints import endpoints_of
    from services.listeners.http.hooks.receiver import hooks_with_secrets
    from services.listeners.http.listener import HttpListener
    from services.operations.metrics_page import MetricsPage
    from services.store.access.hook_deliveries import HookDeliveries
    from services.store.access.tokens import AccessTokens

    settings, project, submission = shared.settings, shared.project, shared.submission()
    live = LiveProject(project, home=settings.home, sources_matter=True)
    access = find_access(settings)
    page = MetricsPage(redis=shared.redis, names=partial(_names, live), flows=settings.home / "metrics")
    endpoints = endpoints_of(project, settings, access.as_environment())
    http = HttpListener(
        settings=settings.api.model_copy(update={"token": required_token(settings)}),
        allowed_hosts=settings.allowed_hosts,
        trusts_own_user=settings.api.token is None,
        port=settings.ports.api,
        limits=shared.limits,
        sources=project.sources.http.named,
        hooks=hooks_with_secrets(project.sources.http.hooks, os.environ),
        deliveries=HookDeliveries(shared.redis),
        tokens=AccessTokens(shared.redis),
        endpoints=endpoints,
        emit_for=shared.emit_for,
        submit=partial(submission.submit, origin="http:signals"),
        outcome=submission.outcome,
        routers=build_routers(shared.redis, settings, submission, shared.prefect, project.name),
        dead=shared.dead_letters,
        readiness=_readiness(shared, access).read,
        scrape=page.text,
    )
    parts: Parts = {"project": live, "http": http}
    return parts | ({} if endpoints is None else {"endpoints": endpoints})


def _readiness(shared: Shared, access: Access) -> CachedReadiness:
    """Return the readiness of the installation, read at most once a second for all requests."""
    from services.operations.readiness import CachedReadiness, read_readiness

    url, auth = str(shared.settings.prefect_api_url), access.prefect_auth_string
    return CachedReadiness(partial(read_readiness, shared.redis, shared.settings, prefect_url=url, prefect_auth=auth))


def _names(live: LiveProject) -> ProjectNames:
    """Return the names in the project in force, each of which has its metrics."""
    from services.operations.metrics_page import ProjectNames

    return ProjectNames([rule.name for rule in live.rules().rules], list(live.project.sources.files))


_ROLES: Final[Mapping[RoleName, Callable[[Shared], Awaitable[Parts]]]] = {
    "listeners": _listeners,
    "router": _router,
    "resumer": _resumer,
    "executor": _executor,
    "api": _api,
}
