"""Builds the parts of the resumer role."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from config.settings import ResumerSettings
from services.prefect_api.client import PrefectApi
from services.prefect_api.events import emit, emit_with_deployments
from services.prefect_api.run_view import RunView
from services.prefect_api.waiting import WaitingRuns
from services.signals.applier import Applier
from services.signals.outcome_publisher import OutcomePublisher, reminder_event
from services.signals.resume_observer import ResumeObserver
from services.signals.wait_observer import WaitObserver
from services.signals.worker import SignalWorker
from services.store.connection import AsyncRedis, SyncRedis
from services.store.dead_letters import DeadLetters
from services.store.events.history import History
from services.store.signals.outbox import Outbox
from services.store.signals.signals import SignalStore
from services.store.signals.waits import Waits

Part = SignalWorker | WaitObserver | OutcomePublisher


@dataclass(frozen=True, slots=True)
class Resumer:
    """The parts of the resumer role; all of them run side by side on one event loop."""

    worker: SignalWorker
    watch: WaitObserver
    publisher: OutcomePublisher

    def parts(self) -> Mapping[str, Part]:
        """The parts by name, for the role's report."""
        return {"worker": self.worker, "watch": self.watch, "publisher": self.publisher}


def build_resumer(
    *,
    redis: AsyncRedis,
    connect_rq: Callable[[], SyncRedis],
    api: PrefectApi,
    settings: ResumerSettings,
    dead: DeadLetters,
    history: History,
    instance: str,
    project: str | None = None,
) -> Resumer:
    """Build the role's parts.

    ``connect_rq`` opens a blocking client of its own; ``instance`` names the process, ``project`` the project whose
    runs are meant by a key.
    """
    store = SignalStore(redis, settings)
    waits = Waits(redis)
    runs = WaitingRuns(api, project=project)
    applier = Applier(store=store, runs=runs, hints=waits, settings=settings)

    async def remind(run: RunView) -> None:
        await emit(api, [reminder_event(run)])

    resume_observer = ResumeObserver(store=store, waits=waits, runs=runs, apply=applier.apply, remind=remind)
    return Resumer(
        worker=SignalWorker(apply=applier.apply, connect=connect_rq, instance=instance, at_once=settings.at_once),
        watch=WaitObserver(
            store=store,
            waits=waits,
            runs=runs,
            apply=applier.apply,
            serve=applier.serve,
            resume_observer=resume_observer,
            settings=settings,
        ),
        publisher=OutcomePublisher(
            store=store,
            outbox=Outbox(redis, consumer=instance),
            emit=lambda bodies: emit_with_deployments(api, bodies),
            dead=dead,
            history=history,
        ),
    )
