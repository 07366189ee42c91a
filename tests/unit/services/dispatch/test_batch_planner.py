"""Which runs go into the next call: order, priority, limits, circuits and items that are suspected."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from events.action import RunDeployment
from services.dispatch.batch_planner import (
    WINDOW,
    WORTH_DIVIDING,
    Allowance,
    DispatchQueue,
    RunBatch,
    held,
    next_batches,
    next_due,
)
from services.dispatch.rule_circuit import CircuitLimits, RuleCircuit
from services.store.runs.dispatch_queues import Dispatch, QueuedRun


def _queue(rule: str, deployment: str, entries: Iterable[int]) -> DispatchQueue:
    queue = DispatchQueue(f"{rule}:{deployment}", rule, deployment, RuleCircuit(CircuitLimits()))
    queue.take_in(_waiting(rule, deployment, number) for number in entries)
    return queue


def _waiting(rule: str, deployment: str, number: int) -> QueuedRun:
    action = RunDeployment(rule=rule, identities=(f"e{number}",), deployment=deployment)
    return QueuedRun(f"{number}-0", Dispatch(action=action, source="s", type="t", positions=("1-0",)))


def _next(
    queues: list[DispatchQueue],
    *,
    now: float = 0.0,
    most: int = 100,
    deployments: int = 10,
    calls_each: int = 1,
    **options: object,
) -> list[RunBatch]:
    return next_batches(
        queues,
        now=now,
        under_way=options.get("under_way", {}),
        priority=options.get("priority", lambda _: 0),
        allowance=options.get("allowance", Allowance()),
        most=most,
        deployments=deployments,
        calls_each=calls_each,
    )


def _numbers(batch: RunBatch) -> list[int]:
    return [int(item.entry.partition("-")[0]) for _, item in batch.items]


def test_each_deployment_gets_a_call_of_its_own() -> None:
    batches = _next([_queue("a", "x", [1, 3]), _queue("b", "x", [2]), _queue("c", "y", [4])])
    assert [(batch.deployment, _numbers(batch)) for batch in batches] == [("x", [1, 2, 3]), ("y", [4])]


def test_a_deployment_with_a_call_under_way_waits_and_others_do_not() -> None:
    batches = _next([_queue("a", "x", [1]), _queue("b", "y", [2])], under_way={"x": 1})
    assert [batch.deployment for batch in batches] == ["y"]


def test_a_deployment_with_several_api_processes_gets_several_calls() -> None:
    queue = _queue("a", "x", range(1, 51))
    batches = _next([queue], calls_each=2)
    assert [_numbers(batch) for batch in batches] == [list(range(1, 26)), list(range(26, 51))]
    assert [_numbers(batch) for batch in _next([queue], calls_each=2, most=10)] == [
        list(range(1, 11)),
        list(range(11, 21)),
    ]


def test_calls_under_way_count_for_a_deployment_and_for_all() -> None:
    queues = [_queue("a", "x", range(1, 31)), _queue("b", "y", [31])]
    (batch,) = _next(queues, calls_each=2, under_way={"x": 1}, deployments=1)
    assert (batch.deployment, len(batch.items)) == ("x", 30)
    assert not _next(queues, calls_each=2, under_way={"x": 2}, deployments=1)
    assert not _next(queues, under_way={"z": 1}, deployments=1)


def test_few_runs_are_not_divided_among_calls() -> None:
    (batch,) = _next([_queue("a", "x", range(1, WORTH_DIVIDING + 1))], calls_each=4)
    assert len(batch.items) == WORTH_DIVIDING


def test_an_open_circuit_sends_one_probe_however_many_calls_there_may_be() -> None:
    queue = _queue("a", "x", range(1, 51))
    queue.circuit.trip("deployment-missing", "it is gone", 0.0)
    (batch,) = _next([queue], now=1000.0, calls_each=4)
    assert (batch.probe, _numbers(batch)) == (True, [1])
    batch.items[0][1].in_flight = True
    assert not _next([queue], now=1000.0, calls_each=4, under_way={"x": 1})


def test_limits_of_a_rule_hold_for_all_calls_together() -> None:
    batches = _next([_queue("a", "x", range(1, 101))], calls_each=4, allowance=Allowance(active={"a": 30}))
    assert [len(batch.items) for batch in batches] == [25, 5]


def test_the_most_urgent_deployment_gets_the_only_call() -> None:
    queues = [_queue("a", "x", [1]), _queue("b", "y", [2])]
    (batch,) = _next(queues, deployments=1, priority=lambda rule: 5 if rule == "b" else 0)
    assert batch.deployment == "y"
    (batch,) = _next(queues, deployments=1)
    assert batch.deployment == "x"


def test_a_call_takes_the_urgent_first_and_no_more_than_fit() -> None:
    queues = [_queue("low", "x", range(1, 5)), _queue("high", "x", range(5, 9))]
    (batch,) = _next(queues, most=6, priority=lambda rule: 1 if rule == "high" else 0)
    assert _numbers(batch) == [5, 6, 7, 8, 1, 2]


def test_entries_are_ordered_as_the_stream_orders_them_and_not_as_text() -> None:
    (batch,) = _next([_queue("a", "x", [9, 10, 100])])
    assert _numbers(batch) == [9, 10, 100]


def test_a_rule_at_its_limit_does_not_hold_up_another() -> None:
    allowance = Allowance(active={"a": 1}, rate={"b": 2})
    (batch,) = _next(
        [_queue("a", "x", [1, 2, 3]), _queue("b", "x", [4, 5, 6]), _queue("c", "x", [7])], allowance=allowance
    )
    assert _numbers(batch) == [1, 4, 5, 7]


def test_the_global_limit_ends_everything() -> None:
    (batch,) = _next([_queue("a", "x", [1, 2]), _queue("b", "x", [3])], allowance=Allowance(total=2))
    assert _numbers(batch) == [1, 2]
    assert _next([_queue("a", "x", [1])], allowance=Allowance(total=0)) == []


def test_what_a_rate_has_let_through_before_is_not_counted_again() -> None:
    queue = _queue("a", "x", [1, 2])
    queue.items["1-0"].admitted = True
    (batch,) = _next([queue], allowance=Allowance(rate={"a": 0}))
    assert _numbers(batch) == [1]


def test_nothing_of_a_rule_overtakes_what_its_rate_holds_back() -> None:
    queue = _queue("a", "x", [1, 2])
    queue.items["2-0"].admitted = True
    assert _next([queue], allowance=Allowance(rate={"a": 0})) == []


def test_what_failed_because_of_the_moment_keeps_its_place() -> None:
    queue = _queue("a", "x", [1, 2, 3])
    queue.items["2-0"].not_before = 10
    queue.items["2-0"].attempts = 1
    (batch,) = _next([queue], now=5)
    assert _numbers(batch) == [1]
    (batch,) = _next([queue], now=10)
    assert _numbers(batch) == [1, 2, 3]


def test_what_waits_out_the_moment_is_not_overtaken_by_another_rule_of_its_deployment() -> None:
    urgent, low, elsewhere = _queue("urgent", "x", [5]), _queue("low", "x", [1]), _queue("low", "y", [2])
    urgent.items["5-0"].not_before = 10
    urgent.items["5-0"].attempts = 1
    queues = [urgent, low, elsewhere]
    batches = _next(queues, now=5, priority=lambda rule: 1 if rule == "urgent" else 0)
    assert [batch.deployment for batch in batches] == ["y"]
    batches = _next(queues, now=10, priority=lambda rule: 1 if rule == "urgent" else 0)
    assert {batch.deployment: _numbers(batch) for batch in batches} == {"x": [5, 1], "y": [2]}


def test_what_may_be_at_fault_itself_is_overtaken() -> None:
    queue = _queue("a", "x", [1, 2, 3])
    queue.items["2-0"].not_before = 10
    queue.items["2-0"].suspect = True
    (batch,) = _next([queue], now=5)
    assert _numbers(batch) == [1, 3]


def test_an_item_that_must_go_alone_goes_alone_once_it_is_first() -> None:
    queue = _queue("a", "x", [1, 2, 3])
    queue.items["2-0"].most_together = 1
    (batch,) = _next([queue])
    assert _numbers(batch) == [1, 3]
    del queue.items["1-0"], queue.items["3-0"]
    (batch,) = _next([queue])
    assert _numbers(batch) == [2]


def test_an_open_circuit_lets_one_through_when_a_probe_is_due() -> None:
    queue = _queue("a", "x", [1, 2, 3])
    queue.circuit.trip("gone", "it is gone", 0.0)
    assert _next([queue], now=0.5) == []
    (batch,) = _next([queue], now=1.0)
    assert _numbers(batch) == [1]
    assert batch.probe
    assert [row["rule"] for row in held([queue], 1.0)] == ["a"]


def test_the_next_thing_to_wait_for_is_the_soonest() -> None:
    queue, other = _queue("a", "x", [1]), _queue("b", "y", [2])
    assert next_due([queue, other], 0.0) == float("inf")
    queue.items["1-0"].not_before = 7
    other.circuit.trip("gone", "", 2.0)
    assert next_due([queue, other], 2.0) == 1.0


def test_no_more_is_read_than_the_window_holds() -> None:
    queue = _queue("a", "x", range(1, 151))
    assert queue.room == WINDOW - 150
    assert queue.last_read == "150-0"


def test_only_what_was_decided_by_the_old_rules_is_outdated() -> None:
    queue = _queue("a", "x", [1, 2, 30, 31])
    assert queue.outdated_items() == []
    queue.outdated = "30-0"
    assert [item.entry for item in queue.outdated_items()] == ["1-0", "2-0", "30-0"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(1, 60)), max_size=40),
    st.integers(1, 10),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 5)),
)
def test_whatever_waits_no_batch_breaks_an_order_or_a_limit(
    entries: list[tuple[str, str, int]], most: int, active: dict[str, int]
) -> None:
    queues: dict[str, DispatchQueue] = {}
    for rule, deployment, number in sorted(set(entries), key=lambda entry: entry[2]):
        queue = queues.setdefault(f"{rule}:{deployment}", _queue(rule, deployment, []))
        queue.take_in([_waiting(rule, deployment, number)])
    batches = _next(list(queues.values()), most=most, allowance=Allowance(active=dict(active)))
    taken: dict[str, list[int]] = {}
    for batch in batches:
        assert 0 < len(batch.items) <= most
        for queue, item in batch.items:
            assert queue.deployment == batch.deployment
            taken.setdefault(queue.name, []).append(int(item.entry.partition("-")[0]))
    for name, numbers in taken.items():
        assert numbers == [int(entry.partition("-")[0]) for entry in list(queues[name].items)[: len(numbers)]]
    for rule, limit in active.items():
        assert sum(len(numbers) for name, numbers in taken.items() if name.startswith(f"{rule}:")) <= limit
