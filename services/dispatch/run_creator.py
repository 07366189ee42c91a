"""Creates runs: one bulk call to Prefect, and everything that follows from its response, item by item."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import structlog

from config.runs import DispatcherSettings
from events.errors import Backpressure, NotFound, Refused, TransientError
from events.identity import id_of
from events.rule import RuleSet
from services.common import metrics
from services.common.backoff import Backoff, ended, heed_cancellation
from services.common.telemetry import tracing
from services.dispatch.announcer import Announcer
from services.dispatch.batch_planner import DispatchQueue, Item, RunBatch
from services.dispatch.refusals import Refusals
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import Deployment, read_by_name
from services.prefect_api.dispatch import (
    CreationResult,
    Result,
    create_runs,
    healthy,
    run_request,
)
from services.store.dead_letters import DeadLetters, letter_id_of
from services.store.event_transitions import EventTransitions, Made
from services.store.events.event_history import now_ms
from services.store.events.journal import Journal
from services.store.keys import position_seconds
from services.store.runs.dispatch_queues import Dispatch

DEPLOYMENT_SECONDS: Final = 60.0
"""How long a deployment's id is cached; a stale one shows as `NotFound` before that."""

LONGEST_HEALTH_SECONDS: Final = 5.0
MOST_ATTEMPTS_ALONE: Final = 8
"""Number of attempts of a run that fails alone, while Prefect is healthy, before it becomes a dead letter."""

MOST_ATTEMPTS_TOGETHER: Final = 3
"""The same for a run of several events, which is then divided to find the event at fault."""

_AT_ONCE_SHARE: Final = 0.1
"""Fraction of the first back-off after which a transient failure is first repeated: on SQLite, a call that waits for
another writer fails just when that writer is done."""

_Outcome: TypeAlias = tuple[DispatchQueue, Item, Result]

log = structlog.get_logger()


class RunCreator:
    """Makes bulk calls and handles their results.

    ``woken`` is set when more runs may be tried. `Refusals` handles refused runs.
    """

    def __init__(
        self,
        *,
        prefect: PrefectApi,
        transitions: EventTransitions,
        journal: Journal,
        dead_letters: DeadLetters,
        announcer: Announcer,
        rules: Callable[[], RuleSet],
        settings: DispatcherSettings,
    ) -> None:
        self._prefect = prefect
        self._transitions = transitions
        self._dead_letters = dead_letters
        self._announcer = announcer
        self._settings = settings
        self._refusals = Refusals(
            prefect=prefect, transitions=transitions, journal=journal, dead_letters=dead_letters, rules=rules
        )
        self.woken = asyncio.Event()
        self._deployments: dict[str, tuple[float, Deployment]] = {}
        self._probing: asyncio.Task[None] | None = None
        self._prefect_trouble = Backoff(
            "reach Prefect", first_seconds=settings.backoff_seconds, longest_seconds=LONGEST_HEALTH_SECONDS
        )
        self._redis_trouble = Backoff("record what was dispatched", first_seconds=0.1, longest_seconds=5)
        self.under_way: Counter[str] = Counter()
        """Number of calls under way for each deployment."""
        self.uncounted: dict[str, int] = {}
        """The number of each rule's runs that are under way, or created and not recorded yet."""
        self.created = 0
        self.refused = 0

    @property
    def prefect_is_well(self) -> bool:
        """Whether Prefect is healthy, so that calls may succeed."""
        return self._probing is None

    @property
    def trouble(self) -> str | None:
        """Why no runs are created, for the status."""
        return self._prefect_trouble.trouble or self._redis_trouble.trouble

    async def make(self, batch: RunBatch) -> None:
        """Create a batch's runs and record the outcome of each; cancelling it loses nothing."""
        rules = [queue.rule for queue, _ in batch.items]
        self.under_way[batch.deployment] += 1
        for _, item in batch.items:
            item.in_flight = True
        for rule in rules:
            self.uncounted[rule] = self.uncounted.get(rule, 0) + 1
        try:
            try:
                results = await self._results(batch)
            finally:
                self.under_way[batch.deployment] -= 1
                self.woken.set()
            await self._settle(batch, results)
        except Exception:
            # An unforeseen response must not be requested again in a tight loop, nor end the other calls.
            log.exception("a call could not be handled; its runs are tried again", deployment=batch.deployment)
            for _, item in batch.items:
                self._hopeless(item, Result(CreationResult.RETRY), 1.0)
        finally:
            for _, item in batch.items:
                item.in_flight = False
            for rule in rules:
                self.uncounted[rule] -= 1
            self.woken.set()

    async def close(self) -> None:
        """End what runs in the background."""
        if self._probing is not None:
            await ended(self._probing)
            self._probing = None

    async def _results(self, batch: RunBatch) -> list[_Outcome]:
        """Return the outcomes of a call's items; items without an outcome are tried again."""
        spans: list[Any] = []
        try:
            return await self._called(batch, spans)
        finally:
            tracing.end(spans)

    async def _called(self, batch: RunBatch, spans: list[Any]) -> list[_Outcome]:
        """Create the runs of a batch in one call to Prefect; return the outcome of each that is known.

        A run whose parameters cannot be sent does not keep the others from being created. If the deployment is missing
        there are no outcomes: its runs are held.
        """
        sent: list[tuple[DispatchQueue, Item]] = []
        bodies: list[dict[str, Any]] = []
        unfit: list[_Outcome] = []
        try:
            deployment = await self._deployment(batch.deployment)
            for queue, item in batch.items:
                try:
                    bodies.append(self._body(item.dispatch, deployment, spans))
                    sent.append((queue, item))
                except Refused as error:
                    unfit.append((queue, item, Result(CreationResult.REFUSED, said=error.reason, code=error.code)))
            results = await create_runs(self._prefect, deployment, bodies) if bodies else []
            if len(spans) == len(results):
                for span, result in zip(spans, results, strict=True):
                    span.set_attributes({"sluice.run_id": result.run_id, "sluice.outcome": result.fate.value})
        except NotFound as error:
            await self._missing(batch, error)
            return []
        except Refused as error:
            return unfit + self._refused_call(sent, error)
        except TransientError as error:
            return unfit + await self._failed_call(sent or batch.items, error)
        return [(*pair, result) for pair, result in zip(sent, results, strict=True)] + unfit

    async def _deployment(self, name: str) -> Deployment:
        known = self._deployments.get(name)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        found = await read_by_name(self._prefect, name, once=True)
        self._deployments[name] = (time.monotonic() + DEPLOYMENT_SECONDS, found)
        return found

    def _body(self, dispatch: Dispatch, deployment: Deployment, spans: list[Any]) -> dict[str, Any]:
        """Return the request for one run; raises `Refused` if its parameters are too large. Begins its trace span."""
        trace = None
        if tracing.is_on():
            named = {"rule": dispatch.action.rule, "deployment": deployment.name}
            spans.append(tracing.begin("sluice create", dispatch.trace, **named))
            trace = tracing.text_of(spans[-1])
        return run_request(
            dispatch.action,
            source=dispatch.source,
            file=dispatch.file,
            has_work_pool=deployment.work_pool is not None,
            max_parameter_bytes=self._settings.max_parameter_bytes,
            trace=trace,
        )

    async def _missing(self, batch: RunBatch, error: NotFound) -> None:
        """Hold the queues of the deployment. One dead letter for each rule shows that its runs are held."""
        self._deployments.pop(batch.deployment, None)
        known = f"the deployment {batch.deployment!r} does not exist"
        reason = f"{known}: register it (`sluice deploy`), and its events go on by themselves"
        for queue, item in {id(queue): (queue, item) for queue, item in reversed(batch.items)}.values():
            if queue.circuit.trip("deployment-missing", reason, time.monotonic()) or queue.untold:
                log.warning("a rule holds its events", rule=queue.rule, reason=reason, said=str(error))
                queue.noticed = queue.untold = True
                with contextlib.suppress(TransientError, Backpressure):  # then the next try writes it
                    (letter, *_) = await self._refusals.letters(item.dispatch, "deployment-missing", reason, attempts=1)
                    await self._dead_letters.add(letter.model_copy(update={"id": _notice_id(queue)}))
                    queue.untold = False

    def _refused_call(self, sent: Sequence[tuple[DispatchQueue, Item]], error: Refused) -> list[_Outcome]:
        """Handle a call that Prefect refused as a whole: its halves are tried, until the run at fault is alone."""
        if len(sent) == 1:
            return [(*sent[0], Result(CreationResult.REFUSED, said=error.reason, code=error.code))]
        for _, item in sent:
            item.most_together = len(sent) // 2
        return []

    async def _failed_call(self, sent: Sequence[tuple[DispatchQueue, Item]], error: TransientError) -> list[_Outcome]:
        """Handle a call with an unknown result. If Prefect is healthy otherwise, one of the items may be at fault."""
        if not await healthy(self._prefect):
            self._wait_for_prefect(error)
            return []
        for _, item in sent:
            item.most_together = max(1, len(sent) // 2)
        alone = len(sent) == 1
        result = Result(CreationResult.FAILED if alone else CreationResult.RETRY, said=str(error), answered=False)
        return [(queue, item, result) for queue, item in sent]

    def _wait_for_prefect(self, error: TransientError) -> None:
        wait = self._prefect_trouble.failed(error)
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe(wait))

    async def _probe(self, wait: float) -> None:
        """Ask Prefect whether it is healthy until it is, with growing pauses; no runs are created meanwhile.

        Otherwise each queue would try it with a whole batch.
        """
        await asyncio.sleep(wait)
        try:
            while not await healthy(self._prefect):
                heed_cancellation()
                wait = self._prefect_trouble.failed(TransientError(self._prefect_trouble.trouble or ""))
                await asyncio.sleep(wait)
            self._prefect_trouble.worked()
        finally:
            self._probing = None  # in any case: no call is made while this is set
            self.woken.set()

    async def _settle(self, batch: RunBatch, results: Sequence[_Outcome]) -> None:
        """Record the outcomes of a batch in Redis: created runs, and refused ones as dead letters.

        Everything else stays in its queue. The circuit of a rule counts each outcome; once it opens, the batch's other
        refusals of the rule are not recorded, and their runs are held.
        """
        made: list[_Outcome] = []
        refused: list[_Outcome] = []
        was_open = {queue.name for queue, _ in batch.items if queue.circuit.is_open}
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - one for all: what failed together stays in order
        for queue, item, result in results:
            if result.fate is CreationResult.CREATED:
                if queue.circuit.succeeded():
                    log.info("a rule no longer holds its events", rule=queue.rule, deployment=queue.deployment)
                made.append((queue, item, result))
            elif result.fate is CreationResult.REFUSED:
                if queue.circuit.is_open and queue.name not in was_open:
                    continue  # this batch has opened the circuit: the rest of it is held, too
                refused.append((queue, item, result))
                # The refusal of the run from which this part was divided has been counted.
                if not (item.dispatch.part and len(item.dispatch.positions) > 1):
                    self._note_refusal(queue, result)
            elif self._hopeless(item, result, jitter):
                refused.append((queue, item, result))
        await self._until_recorded(made, refused)
        # Only after they are recorded: an item forgotten before it is recorded would never leave its queue.
        for queue, item, _ in (*made, *refused):
            queue.items.pop(item.entry, None)

    def _hopeless(self, item: Item, result: Result, jitter: float) -> bool:
        """Let the item be tried again; return whether it has been tried too often."""
        if result.fate is CreationResult.ALONE:
            item.most_together = 1
            return False
        item.attempts += 1
        item.suspect = result.fate is CreationResult.FAILED
        doublings = min(item.attempts - (2 if result.fate is CreationResult.RETRY else 1), 16)
        factor = _AT_ONCE_SHARE if doublings < 0 else 2**doublings
        wait = min(self._settings.max_backoff_seconds, self._settings.backoff_seconds * factor)
        item.not_before = time.monotonic() + wait * jitter
        together = len(item.dispatch.positions) > 1 and result.answered
        most = MOST_ATTEMPTS_TOGETHER if together else MOST_ATTEMPTS_ALONE
        return result.fate is CreationResult.FAILED and item.attempts >= most

    def _note_refusal(self, queue: DispatchQueue, result: Result) -> None:
        if queue.circuit.failed(result.code, result.said, time.monotonic()):
            log.warning("a rule holds its events", rule=queue.rule, deployment=queue.deployment, reason=result.said)

    async def _until_recorded(self, made: Sequence[_Outcome], refused: Sequence[_Outcome]) -> None:
        """Record outcomes until Redis accepts them: the runs exist, and their queues keep them until then."""
        while True:
            try:
                new = await self._transitions.created(
                    [Made(item.entry, item.dispatch, one.run_id) for _, item, one in made]
                )
                for _, item, result in refused:
                    self.refused += await self._refusals.settle(item, result)
                await self._take_notices_back({id(queue): queue for queue, _, _ in made}.values())
            except (TransientError, Backpressure) as error:
                await self._redis_trouble.after(error)
                continue
            break
        self._redis_trouble.worked()
        for (_, item, result), is_new in zip(made, new, strict=True):
            self.created += 1
            if is_new:
                metrics.created.labels(item.dispatch.action.rule).inc()
                took = now_ms() / 1000 - position_seconds(item.entry)
                metrics.creation_seconds.labels(item.dispatch.action.rule).observe(max(0.0, took))
            action = item.dispatch.action
            _, target = self._deployments.get(action.deployment, (0.0, None))
            self._announcer.announce(item.dispatch, result.run_id, target)
            log.info(
                "run created",
                event_id=id_of(action.identities[0]),
                rule=action.rule,
                run_id=result.run_id,
                deployment=action.deployment,
            )

    async def _take_notices_back(self, queues: Iterable[DispatchQueue]) -> None:
        """Remove the dead letters that say why a rule holds its runs; one may be from an earlier process."""
        noticed = [queue for queue in queues if queue.noticed]
        if noticed:
            await self._dead_letters.discard([_notice_id(queue) for queue in noticed])
        for queue in noticed:
            queue.noticed = queue.untold = False


def _notice_id(queue: DispatchQueue) -> str:
    return letter_id_of("held", queue.rule, queue.deployment)
