"""A circuit opens over a shared reason, lets one through now and then, and closes by itself."""

from __future__ import annotations

from services.dispatch.rule_circuit import CircuitLimits, RuleCircuit

LIMITS = CircuitLimits(events=10, least=4, share=0.5, first_probe_seconds=1, longest_probe_seconds=8)


def test_it_opens_when_enough_of_the_last_outcomes_failed_alike() -> None:
    circuit = RuleCircuit(LIMITS)
    assert [circuit.failed("bad", "so bad", 0.0) for _ in range(4)] == [False, False, False, True]
    assert circuit.is_open
    assert (circuit.cause, circuit.reason, circuit.since) == ("bad", "so bad", 0.0)


def test_it_stays_closed_while_most_go_well() -> None:
    circuit = RuleCircuit(LIMITS)
    for _ in range(20):
        circuit.succeeded()
        circuit.succeeded()
        assert not circuit.failed("bad", "", 0.0)


def test_it_stays_closed_while_the_reasons_differ() -> None:
    circuit = RuleCircuit(LIMITS)
    assert not any(circuit.failed(f"reason-{number}", "", 0.0) for number in range(50))


def test_a_few_failures_among_many_do_not_add_up_over_time() -> None:
    circuit = RuleCircuit(LIMITS)
    for number in range(200):
        if number % 5 == 0:
            circuit.failed("bad", "", 0.0)
        else:
            circuit.succeeded()
    assert not circuit.is_open


def test_the_time_between_probes_doubles_up_to_the_longest() -> None:
    circuit = RuleCircuit(LIMITS)
    circuit.trip("gone", "", 100.0)
    waits = []
    now = 100.0
    for _ in range(5):
        waits.append(circuit.next_probe - now)
        assert not circuit.probe_due(circuit.next_probe - 0.01)
        now = circuit.next_probe
        assert circuit.probe_due(now)
        circuit.trip("gone", "", now)
    assert waits == [1, 2, 4, 8, 8]
    assert circuit.since == 100.0


def test_a_probe_that_works_closes_it_and_the_count_begins_anew() -> None:
    circuit = RuleCircuit(LIMITS)
    for _ in range(4):
        circuit.failed("bad", "", 0.0)
    assert circuit.succeeded()
    assert not circuit.is_open
    assert not circuit.succeeded()
    assert [circuit.failed("bad", "", 0.0) for _ in range(4)] == [False, False, False, True]
    assert circuit.next_probe == 1.0


def test_a_probe_that_fails_keeps_it_open_with_the_newest_reason() -> None:
    circuit = RuleCircuit(LIMITS)
    for _ in range(4):
        circuit.failed("bad", "first", 0.0)
    assert not circuit.failed("bad", "latest", 1.0)
    assert circuit.reason == "latest"
    assert circuit.next_probe == 3.0
