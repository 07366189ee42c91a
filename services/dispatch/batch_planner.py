"""What the dispatcher has before its eyes of each queue, and which runs go into the next call. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from services.dispatch.rule_circuit import RuleCircuit
from services.store.events.journal import order
from services.store.runs.dispatch_queues import Dispatch, QueuedRun

WINDOW: Final = 200
"""How many entries of a queue are held in memory; the rest waits in Redis."""

KEEPS_ITS_PLACE: Final = 9
"""So many times what failed because of the moment is tried again before what stands behind it may overtake it."""


@dataclass(slots=True)
class Item:
    """An entry of a queue in memory."""

    entry: str
    dispatch: Dispatch
    not_before: float = 0.0
    attempts: int = 0
    suspect: bool = False
    """It failed alone, so the fault may be its own: nothing waits for it."""
    most_together: int = 100
    """How many may be in one call with it: halved when a whole call is refused, to find who is at fault."""
    in_flight: bool = False
    admitted: bool = False
    """Its rule's rate has let it pass."""


@dataclass(slots=True)
class DispatchQueue:
    """The head of a queue."""

    name: str
    rule: str
    deployment: str
    circuit: RuleCircuit
    items: dict[str, Item] = field(default_factory=dict)
    last_read: str = ""
    length: int = 0
    rules: str = ""
    """Under which version of the rules what waits was last judged, as far as is known."""
    outdated: str = ""
    """Up to this entry, what waits was decided by rules that have changed since, and is to be judged again."""
    noticed: bool = True
    """A letter may say that the queue waits; it is taken back when a run is created."""

    @property
    def room(self) -> int:
        """How many more entries may be read."""
        return max(0, WINDOW - len(self.items))

    def outdated_items(self) -> list[Item]:
        """What is in memory of that, calls under way included; runs of several events stay as they were decided."""
        if not self.outdated:
            return []
        last = order(self.outdated)
        return [item for item in self.items.values() if len(item.dispatch.positions) == 1 and order(item.entry) <= last]

    def take_in(self, waiting: Iterable[QueuedRun]) -> None:
        """Add what was read."""
        for one in waiting:
            self.items.setdefault(one.entry, Item(one.entry, one.dispatch))
            self.last_read = one.entry


@dataclass(frozen=True, slots=True)
class RunBatch:
    """The runs of one call."""

    deployment: str
    items: list[tuple[DispatchQueue, Item]]
    probe: bool = False
    """The one item of an open circuit."""


@dataclass(slots=True)
class Allowance:
    """How many runs may be created now: by rules' limits on active runs and on the rate, and in all.

    A rule that is not named has no such limit. What is chosen is taken off.
    """

    active: dict[str, int] = field(default_factory=dict)
    rate: dict[str, int] = field(default_factory=dict)
    total: int | None = None
    more_in_seconds: float = float("inf")
    """When a rate allows the next one."""

    def take(self, rule: str, *, admitted: bool = False) -> bool:
        """Whether one more of ``rule`` may be created; an ``admitted`` one has been counted by the rate before."""
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
    """What of the queue may go into a call, in order: everything that is due, or one if its circuit wants a probe."""
    if queue.circuit.is_open and not queue.circuit.probe_due(now):
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
    """The first item that failed because of the moment and is not due yet: the moment is the same for all behind it."""
    if queue.circuit.is_open:
        return None
    waiting = (item for item in queue.items.values() if not item.in_flight and item.not_before > now)
    return next((item for item in waiting if _keeps_its_place(item)), None)


def next_batches(
    queues: Iterable[DispatchQueue],
    *,
    now: float,
    busy: set[str],
    priority: Callable[[str], int],
    allowance: Allowance,
    most: int,
    calls: int,
) -> list[RunBatch]:
    """At most ``calls`` batches for deployments that are not ``busy``.

    Higher priorities first; among equals, who has waited longest. That order is kept among all rules of a deployment
    while something waits out the moment, but for items that may be at fault themselves.
    """
    by_deployment = _rows_by_deployment([queue for queue in queues if queue.deployment not in busy], now, priority)
    batches: list[RunBatch] = []
    for deployment, rows in sorted(by_deployment.items(), key=lambda pair: _by_rank(pair[1][0])):
        if len(batches) >= calls:
            break
        chosen = _choose(rows, allowance, most)
        if chosen:
            batches.append(RunBatch(deployment, chosen, probe=any(queue.circuit.is_open for queue, _ in chosen)))
    return batches


def _rows_by_deployment(
    queues: Iterable[DispatchQueue], now: float, priority: Callable[[str], int]
) -> dict[str, list[_Row]]:
    """What may be tried now, in order, as far as nothing before it waits out the moment."""
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
    """Seconds until something in memory may be tried that may not be now; infinite if nothing waits for a time."""
    times = [
        queue.circuit.next_probe
        if queue.circuit.is_open
        else min((item.not_before for item in queue.items.values() if item.not_before > now), default=float("inf"))
        for queue in queues
        if queue.items
    ]
    return max(0.0, min((time for time in times if time > now), default=float("inf")) - now)


def _choose(
    rows: list[tuple[int, tuple[int, int], DispatchQueue, Item]], allowance: Allowance, most: int
) -> list[tuple[DispatchQueue, Item]]:
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
            exhausted.add(queue.rule)  # what stands behind it in its rule must not overtake it
            continue
        together = limit
        chosen.append((queue, item))
    return chosen


def _by_rank(row: _Row) -> _Rank:
    return row[0], row[1]


def held(queues: Iterable[DispatchQueue], now: float) -> list[Mapping[str, object]]:
    """The queues whose circuits are open, for the status."""
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
