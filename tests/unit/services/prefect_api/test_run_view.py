"""A waiting run as it is seen, remembered, and told from another wait."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.prefect_api.run_view import RunView, remembered, view
from sluice.protocol import KEYS, WAIT

RUN: dict[str, Any] = {
    "id": "r1",
    "name": "n",
    "created": "2026-01-01T00:00:00+00:00",
    "state": {
        "id": "s1",
        "type": "PAUSED",
        "name": "Paused",
        "timestamp": "2026-01-01T00:00:01+00:00",
        "state_details": {"pause_key": f"{WAIT}x--e2", "run_input_keyset": {KEYS: '["k"]', "response": "x"}},
    },
}


def test_a_wait_of_sluice_is_known_by_its_pause_key() -> None:
    run = view(RUN)
    assert run.ours
    assert run.wait_id == f"{WAIT}x--e2"
    assert run.is_in(run.wait_id)
    assert run.is_in("s1")
    assert not run.is_in(f"{WAIT}x")
    assert run.wait_name == f"r1 {WAIT}x"


def test_a_pause_of_prefects_own_is_known_by_its_state() -> None:
    state = RUN["state"] | {"state_details": {"pause_key": "paused-1"}}
    run = view(RUN | {"state": state})
    assert not run.ours
    assert (run.wait_id, run.keys) == ("s1", ())


def test_a_run_of_another_project_waits_for_none_of_our_keys() -> None:
    assert replace(view(RUN), foreign=True).keys == ()


def test_what_is_remembered_is_the_same_run_and_says_that_it_was_heard() -> None:
    run = view(RUN)
    assert remembered(run.memo) == replace(run, heard=True)


def test_a_run_without_a_state_does_not_wait() -> None:
    run: RunView = view(RUN | {"state": None})
    assert (run.state_type, run.waiting, run.final) == ("PENDING", False, False)
