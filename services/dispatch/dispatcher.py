"""The dispatcher: takes decided runs out of the dispatch queues and has Prefect create them in bulk, each once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from config.runs import DispatcherSettings
from events.errors import Backpressure, TransientError
from events.rule import RuleSet
from events.rule_model import RuleSpec
from services.common.backoff import Backoff, ended, heed_cancellation
from services.common.reasons import RETRYING, told
from services.dispatch.batch_planner import WINDOW, Allowance, DispatchQueue, RunBatch, held, next_batches, next_due
from services.dispatch.rule_circuit import CircuitLimits, RuleCircuit
from services.dispatch.run_creator import RunCreator
from services.store.events.event_history import now_ms
from services.store.lease import Lease
from services.store.rules.rule_usage import RuleUsages
from services.store.runs.dispatch_queues import Dispatch, DispatchQueues

LEASE_SECONDS: Final = 5.0
"""Lease time of the dispatcher: after it, another process takes over from one that was killed."""

_STANDBY_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 2.0
_FINISH_SECONDS: Final = 2.5
_RECOUNT_SECONDS: Final = 5.0

log = structlog.get_logger()


class Dispatcher:
    """Creates the decided runs while this process holds the lease; other instances stand by.

    A run leaves its queue only in the step that records its outcome. Everything before is safe to repeat, because
    Prefect creates one run for an idempotency key.
    """

    def __init__(
        self,
        *,
        queues: DispatchQueues,
        paces: RuleUsages,
        lease: Lease,
        rules: Callable[[], RuleSet],
        calls: RunCreator,
        rules_version: Callable[[], str],
        rejudge: Callable[[Sequence[tuple[str, Dispatch]]], Awaitable[int]],
        settings: DispatcherSettings,
    ) -> None:
        self._source = queues
        self._paces = paces
        self._lease = lease
        self._rules = rules
        self._rules_version = rules_version
        self._rejudge = rejudge
        self._settings = settings
        self._circuits = CircuitLimits(
            events=settings.circuit_events,
            least=settings.circuit_least,
            share=settings.circuit_share,
            longest_probe_seconds=settings.longest_probe_seconds,
        )
        self._calls = calls
        self._wake = calls.woken
        self._queues: dict[str, DispatchQueue] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._trouble = Backoff("dispatch", first_seconds=0.1, longest_seconds=5)
        self._active = False
        self._next_recount = 0.0
        self._judged_by = ""
        """The version of the rules that evaluated the queues found next; unknown for queues from before the start."""

    async def run(self) -> None:
        """Dispatch until cancelled, whenever this process holds the lease; calls under way get 2.5 s to end."""
        while True:
            try:
                if await self._lease.acquire():
                    await self._lead()
            except (TransientError, Backpressure) as error:
                await self._trouble.after(error)
            heed_cancellation()
            await asyncio.sleep(_STANDBY_SECONDS)

    def status(self) -> Mapping[str, Any]:
        """For the role's report; ``held`` lists the held queues with their reasons."""
        holding = held(self._queues.values(), time.monotonic())
        status: dict[str, Any] = {
            "ready": True,
            "active": self._active,
            "created": self._calls.created,
            "refused": self._calls.refused,
            "waiting": sum(max(queue.length, len(queue.items)) for queue in self._queues.values()),
            "held": holding,
            "paced": self._paced(),
        }
        troubles = [trouble for trouble in (self._trouble.trouble, self._calls.trouble) if trouble]
        held_rules = [f"rule {one['rule']} holds {one['waiting']} runs: {one['reason']}" for one in holding]
        return status | told({RETRYING: "; ".join(troubles), "rule-held": "; ".join(held_rules)})

    def is_busy(self) -> bool:
        """Whether there are runs that may be created now."""
        return any(queue.items and not queue.circuit.is_open for queue in self._queues.values())

    def _paced(self) -> list[str]:
        """The rules with waiting runs that limits of their own, or of all rules, keep back."""
        rules = {queue.rule for queue in self._queues.values() if queue.items}
        paces = {rule: self._pace(rule) for rule in rules}
        return sorted(
            rule
            for rule, pace in paces.items()
            if pace.rate is not None or pace.max_active_runs is not None or self._settings.max_active_runs is not None
        )

    def _pace(self, rule: str) -> RuleSpec:
        """Return priority and limits of the rule; no limits if the rule no longer exists."""
        known = self._rules().get(rule)
        return known.spec if known is not None else RuleSpec(name=rule, on="*", run="unknown/unknown")

    async def _lead(self) -> None:
        """Dispatch while this process holds the lease."""
        log.info("dispatching")
        self._active = True
        helpers = {asyncio.create_task(self._keep_lease()), asyncio.create_task(self._listen())}
        try:
            while self._lease.certain:
                self._wake.clear()
                try:
                    wait = await self._turn()
                    self._trouble.worked()
                except (TransientError, Backpressure) as error:
                    wait = self._trouble.failed(error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), wait)
                heed_cancellation()
        finally:
            self._active = False
            await ended(*helpers)
            await self._finish()
            self._queues.clear()
            self._judged_by = ""
            with contextlib.suppress(TransientError, Backpressure):
                await self._lease.release()

    async def _finish(self) -> None:
        """Let calls under way end: their results save repetitions, though nothing is lost without them."""
        if self._work:
            _, late = await asyncio.wait(self._work, timeout=_FINISH_SECONDS)
            await ended(*late)
        await self._calls.close()

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 4)
            if not self._active:
                return  # a lease without a working dispatcher would keep the other instances from dispatching
            with contextlib.suppress(TransientError, Backpressure):
                if not await self._lease.renew():
                    log.warning("another process dispatches now")
                    self._wake.set()
                    return

    async def _listen(self) -> None:
        """Wake the dispatcher when runs are queued. While Redis is away the next turn finds them."""
        last = "$"
        while True:
            try:
                heard = await self._source.wait(last, seconds=_LONGEST_WAIT_SECONDS)
            except (TransientError, Backpressure):
                await asyncio.sleep(_LONGEST_WAIT_SECONDS)
                continue
            if heard != last:
                last = heard
                self._wake.set()
            heed_cancellation()

    async def _turn(self) -> float:
        """Read the queues, start the calls that can be started, and return the longest time to wait in seconds."""
        await self._refill()
        await self._reconsider()
        if not self._calls.prefect_is_well:
            return _LONGEST_WAIT_SECONDS
        now = time.monotonic()
        allowance = await self._allowance()
        batches = next_batches(
            self._queues.values(),
            now=now,
            under_way=self._calls.under_way,
            priority=lambda rule: self._pace(rule).priority,
            allowance=allowance,
            most=self._settings.batch,
            deployments=self._settings.calls,
            calls_each=self._settings.calls_per_deployment,
        )
        await self._pass_on(batches)
        for batch in batches:
            task = asyncio.create_task(self._calls.make(batch))
            self._work.add(task)
            task.add_done_callback(self._work.discard)
        if batches:
            await asyncio.sleep(0)
        return min(_LONGEST_WAIT_SECONDS, next_due(self._queues.values(), now), max(0.001, allowance.more_in_seconds))

    async def _refill(self) -> None:
        """Read waiting runs from Redis into the windows of the queues, and note how long the full queues are.

        A queue that has disappeared from Redis is read from its beginning when it appears again.
        """
        names = await self._source.names()
        for name in names:
            if name not in self._queues:
                rule, _, deployment = name.partition(":")
                window = WINDOW * self._settings.calls_per_deployment
                self._queues[name] = DispatchQueue(
                    name, rule, deployment, RuleCircuit(self._circuits), window, rules=self._judged_by
                )
        present = set(names)
        for name, queue in self._queues.items():
            if name not in present and not queue.items:
                queue.last_read = ""
                queue.length = 0
                queue.rules = self._judged_by
        wanted = {name: (queue.last_read, queue.room) for name in names if (queue := self._queues[name]).room}
        for name, waiting in (await self._source.read(wanted)).items():
            self._queues[name].take_in(waiting)
        full = [name for name in names if not self._queues[name].room]
        for name, length in (await self._source.lengths(full)).items():
            self._queues[name].length = length
        self._judged_by = self._rules_version()
        if time.monotonic() >= self._next_recount:
            await self._recount([name for name in names if self._queues[name].room])

    async def _recount(self, names: Sequence[str]) -> None:
        """Read a queue from its beginning if it holds more than is in memory.

        Reading on skips entries before the last one that was read. Such entries exist when a server has come back
        without its last second, in which they were taken out, or when its clock was set back.
        """
        for name, length in (await self._source.lengths(names)).items():
            queue = self._queues[name]
            if length > len(queue.items):
                queue.last_read = ""
        self._next_recount = time.monotonic() + _RECOUNT_SECONDS

    async def _reconsider(self) -> None:
        """When the rules have changed, let the new rules decide on the held runs again."""
        version = self._rules_version()
        changed = [name for name, queue in self._queues.items() if queue.circuit.is_open and queue.rules != version]
        if changed:
            for name, last in (await self._source.ends(changed)).items():
                self._queues[name].outdated = last
            for name in changed:
                self._queues[name].rules = version
        for queue in self._queues.values():
            if not queue.outdated:
                continue
            outdated = queue.outdated_items()
            items = [item for item in outdated if not item.in_flight]
            moved = await self._rejudge([(item.entry, item.dispatch) for item in items])
            if moved:
                for item in items:
                    del queue.items[item.entry]
                if moved < len(items):
                    queue.last_read = ""  # events that the journal no longer holds stay as they were decided
                self._wake.set()  # more entries may follow
            elif len(items) == len(outdated):  # else the end of a call wakes the dispatcher
                queue.outdated = ""
                queue.circuit.reset()
                log.info("held runs were evaluated again by the present rules", rule=queue.rule)

    async def _allowance(self) -> Allowance:
        """Return how many runs of each rule, and in all, may be created now by limits of active runs and rates.

        Runs whose creation is under way are not counted in Redis yet, and are added here.
        """
        paces = {queue.rule: self._pace(queue.rule) for queue in self._queues.values() if queue.items}
        active = {rule: pace.max_active_runs for rule, pace in paces.items() if pace.max_active_runs is not None}
        rates = {rule: pace.rate for rule, pace in paces.items() if pace.rate is not None}
        most = self._settings.max_active_runs
        allowance = Allowance()
        if not active and not rates and most is None:
            return allowance
        now = now_ms()
        seconds = {rule: rate.per_seconds for rule, rate in rates.items()}
        uncounted = self._calls.uncounted
        usage = await self._paces.usage(active=list(active), rates=seconds, now_ms=now)
        for rule, limit in active.items():
            allowance.active[rule] = max(0, limit - usage.active[rule] - uncounted.get(rule, 0))
        for rule, rate in rates.items():
            allowance.rate[rule] = max(0, rate.count - usage.passed[rule])
            if rule in usage.oldest_ms:
                room_in = usage.oldest_ms[rule] / 1000 + rate.per_seconds - now / 1000
                allowance.more_in_seconds = min(allowance.more_in_seconds, max(0.0, room_in) + 0.002)
        if most is not None:
            allowance.total = max(0, most - usage.open_runs - sum(uncounted.values()))
        return allowance

    async def _pass_on(self, batches: Sequence[RunBatch]) -> None:
        """Count runs for their rules' rates before they are sent: a crash makes a rate admit fewer runs, never more."""
        passed: dict[str, list[str]] = {}
        seconds: dict[str, float] = {}
        chosen = [pair for batch in batches for pair in batch.items]
        for queue, item in chosen:
            rate = self._pace(queue.rule).rate
            if rate is not None and not item.admitted:
                passed.setdefault(queue.rule, []).append(f"{queue.name} {item.entry}")
                seconds[queue.rule] = rate.per_seconds
        if passed:
            await self._paces.pass_on(passed, seconds=seconds, now_ms=now_ms())
        for _, item in chosen:
            item.admitted = True
