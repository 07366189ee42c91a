"""Plans batches: the head of each dispatch queue in memory, and which runs go into the next call. Pure, no I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from services.dispatch.rule_circuit import RuleCircuit
from services.store.events.journal import order
from services.store.runs.dispatch_queues import Dispatch, QueuedRun

WINDOW: Final = 200
"""Number of entries of a queue that are kept in memory for each call under way; the rest stays in Redis."""

WORTH_DIVIDING: Final = 20
"""Number of runs in a call below which waiting runs are not divided among calls: a call costs more than it saves."""

KEEPS_ITS_PLACE: Final = 9
"""Number of attempts of a run that fails for a transient reason before later runs may overtake it."""


@dataclass(slots=True)
class Item:
    """An entry of a queue in memory."""

    entry: str
    dispatch: Dispatch
    not_before: float = 0.0
    attempts: int = 0
    suspect: bool = False
    """Whether the run failed alone, so that the fault may be its own: later runs may overtake it."""
    most_together: int = 100
    """Largest number of runs in a call with it: halved when a whole call is refused, to find the run at fault."""
    in_flight: bool = False
    admitted: bool = False
    """Whether its rule's rate has admitted it."""


@dataclass(slots=True)
class DispatchQueue:
    """The head of a queue."""

    name: str
    rule: str
    deployment: str
    circuit: RuleCircuit
    window: int = WINDOW
    items: dict[str, Item] = field(default_factory=dict)
    last_read: str = ""
    length: int = 0
    rules: str = ""
    """The version of the rules that last evaluated the queue, as far as is known."""
    outdated: str = ""
    """Entries up to this one were decided by rules that have changed since, and must be evaluated again."""
    noticed: bool = True
    """Whether a dead letter may say that the queue is held; it is removed when a run is created."""
    untold: bool = False
    """Whether such a dead letter is still to be written."""

    @property
    def room(self) -> int:
        """The number of entries that may still be read."""
        return max(0, self.window - len(self.items))

    def outdated_items(self) -> list[Item]:
        """The outdated entries in memory, calls under way included; runs of several events stay as decided."""
        if not self.outdated:
            return []
        last = order(self.outdated)
        return [item for item in self.items.values() if len(item.dispatch.positions) == 1 and order(item.entry) <= last]

    def take_in(self, waiting: Iterable[QueuedRun]) -> None:
        """Add entries that were read."""
        for one in waiting:
            self.items.setdefault(one.entry, Item(one.entry, one.dispatch))
            self.last_read = one.entry


@dataclass(frozen=True, slots=True)
class RunBatch:
    """The runs of one call."""

    deployment: str
    items: list[tuple[DispatchQueue, Item]]
    probe: bool = False
    """Whether this is the probe run of an open circuit."""


@dataclass(slots=True)
class Allowance:
    """The number of runs that may be created now: by each rule's `max_active_runs` and `rate`, and in all.

    A rule that is not named has no such limit. `take` reduces what is left.
    """

    active: dict[str, int] = field(default_factory=dict)
    rate: dict[str, int] = field(default_factory=dict)
    total: int | None = None
    more_in_seconds: float = float("inf")
    """When each rule's rate admits the next run."""

    def take(self, rule: str, *, admitted: bool = False) -> bool:
        """Whether one more run of ``rule`` may be created; the rate has counted an ``admitted`` one before."""
        counted_by_rate = rule in self.rate and not admitted
        if self.total == 0 or self.active.get(rule) == 0 or (counted_by_rate and self.rate[rule] == 0):
            return False
        if self.total is not None:
            self.total -= 1
        if rule in self.active:
            self.active[rule] -= 1
        if counted_by_rate:
            self.rate[rule] -= 1
        return True


_Rank: TypeAlias = tuple[int, tuple[int, int]]
_Row: TypeAlias = tuple[int, tuple[int, int], DispatchQueue, Item]


def ready_items(queue: DispatchQueue, now: float) -> list[Item]:
    """Return the items of the queue that may go into a call, in order: all that are due, or the circuit's probe."""
    if queue.circuit.is_open and (
        not queue.circuit.probe_due(now) or any(item.in_flight for item in queue.items.values())
    ):
        return []
    due: list[Item] = []
    for item in queue.items.values():
        if item.in_flight:
            continue
        if item.not_before > now:
            if _keeps_its_place(item):
                break
            continue
        due.append(item)
    return due[:1] if queue.circuit.is_open else due


def _keeps_its_place(item: Item) -> bool:
    return item.attempts <= KEEPS_ITS_PLACE and not item.suspect


def _first_in_wait(queue: DispatchQueue, now: float) -> Item | None:
    """Return the first item that failed for a transient reason and is not due: the reason holds for all behind it."""
    if queue.circuit.is_open:
        return None
    waiting = (item for item in queue.items.values() if not item.in_flight and item.not_before > now)
    return next((item for item in waiting if _keeps_its_place(item)), None)


def next_batches(
    queues: Collection[DispatchQueue],
    *,
    now: float,
    under_way: Mapping[str, int],
    priority: Callable[[str], int],
    allowance: Allowance,
    most: int,
    deployments: int,
    calls_each: int = 1,
) -> list[RunBatch]:
    """Return batches of at most ``most`` runs for at most ``deployments`` deployments, ``calls_each`` for each of them.

    ``under_way`` holds the number of calls that each deployment has under way; they count for both limits. Higher
    priorities first; among equals, the oldest. All rules of a deployment keep that order from call to call while a run
    is retried for a transient reason, except for items that may be at fault themselves.
    """
    free = {queue.deployment: calls_each - under_way.get(queue.deployment, 0) for queue in queues}
    by_deployment = _rows_by_deployment([queue for queue in queues if free[queue.deployment] > 0], now, priority)
    batches: list[RunBatch] = []
    chosen_for = {deployment for deployment, calls in under_way.items() if calls}
    for deployment, rows in sorted(by_deployment.items(), key=lambda pair: _by_rank(pair[1][0])):
        if len(chosen_for | {deployment}) > deployments:
            continue
        for chosen in _divide(rows, allowance, most, calls=free[deployment]):
            chosen_for.add(deployment)
            batches.append(RunBatch(deployment, chosen, probe=any(queue.circuit.is_open for queue, _ in chosen)))
    return batches


def _rows_by_deployment(
    queues: Iterable[DispatchQueue], now: float, priority: Callable[[str], int]
) -> dict[str, list[_Row]]:
    """Return what may be tried now, in order, up to an item that is not due after a transient failure."""
    found: dict[str, list[_Row]] = {}
    barriers: dict[str, _Rank] = {}
    for queue in queues:
        rank = -priority(queue.rule)
        found.setdefault(queue.deployment, []).extend(
            (rank, order(item.entry), queue, item) for item in ready_items(queue, now)
        )
        if (waiting := _first_in_wait(queue, now)) is not None:
            barrier = (rank, order(waiting.entry))
            barriers[queue.deployment] = min(barrier, barriers.get(queue.deployment, barrier))
    for deployment, barrier in barriers.items():
        found[deployment] = [row for row in found[deployment] if _by_rank(row) < barrier]
    return {deployment: sorted(rows, key=_by_rank) for deployment, rows in found.items() if rows}


def next_due(queues: Iterable[DispatchQueue], now: float) -> float:
    """Return the seconds until the next item in memory is due; infinite if none has a due time."""
    times = [
        queue.circuit.next_probe
        if queue.circuit.is_open
        else min((item.not_before for item in queue.items.values() if item.not_before > now), default=float("inf"))
        for queue in queues
        if queue.items
    ]
    return max(0.0, min((time for time in times if time > now), default=float("inf")) - now)


def _divide(
    rows: list[_Row], allowance: Allowance, most: int, *, calls: int
) -> Iterable[list[tuple[DispatchQueue, Item]]]:
    """Yield what goes into each of at most ``calls`` calls that are made at once."""
    size = min(most, max(WORTH_DIVIDING, math.ceil(len(rows) / calls)))
    left = rows
    for _ in range(calls):
        chosen = _choose(left, allowance, size)
        if not chosen:
            break
        yield chosen
        taken = {id(item) for _, item in chosen}
        left = [row for row in left if id(row[3]) not in taken]


def _choose(rows: list[_Row], allowance: Allowance, most: int) -> list[tuple[DispatchQueue, Item]]:
    """Return the first ``most`` runs that the limits allow, in the order of the rows.

    A run may ask for a smaller batch (`most_together`), and is left for a later one when this one is larger already.
    """
    chosen: list[tuple[DispatchQueue, Item]] = []
    exhausted: set[str] = set()
    together = most
    for _, _, queue, item in rows:
        if queue.rule in exhausted:
            continue
        limit = min(together, item.most_together)
        if len(chosen) >= limit:
            if len(chosen) >= together:
                break
            continue
        if not allowance.take(queue.rule, admitted=item.admitted):
            exhausted.add(queue.rule)  # later runs of the rule must not overtake it
            continue
        together = limit
        chosen.append((queue, item))
    return chosen


def _by_rank(row: _Row) -> _Rank:
    return row[0], row[1]


def held(queues: Iterable[DispatchQueue], now: float) -> list[Mapping[str, object]]:
    """Return the queues whose circuits are open, for the status."""
    return [
        {
            "rule": queue.rule,
            "deployment": queue.deployment,
            "cause": queue.circuit.cause,
            "reason": queue.circuit.reason,
            "for_seconds": round(now - queue.circuit.since),
            "waiting": max(queue.length, len(queue.items)),
            "next_try_in_seconds": max(0, round(queue.circuit.next_probe - now)),
        }
        for queue in queues
        if queue.circuit.is_open
    ]
