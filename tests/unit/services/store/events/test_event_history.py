"""One event's history: what its lines amount to, in whatever order and of whatever version they are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from events.event import Event
from services.store.events.event_history import EventHistory, change_line, fold, moment, note_line, packed, unpacked
from services.store.events.journal import JournalEntry
from services.store.unreadable import FAULTS

T0 = 1_767_000_000_000
POSITION = f"{T0}-0"
EVENT = Event(id="e1", source="shop", type="order.placed", subject="s", time=datetime(2026, 1, 1, tzinfo=UTC))
JUDGED = ["v", T0 + 20, POSITION, "v7", "", [[0, "pay"]]]
UNMATCHED = ["v", T0 + 20, POSITION, "v7", "", [[0, "pay", "when", "amount = 0"]]]
CREATED = ["r", T0 + 50, "run-1", "pay", "flow/d"]
LETTER = ["d", T0 + 60, "l1", "pay", "refused", "too large"]


def state(type_: str, at: int, run_id: str = "run-1", message: str = "") -> list[Any]:
    return ["s", T0 + at, run_id, type_, type_.title(), message]


def history(*lines: list[Any], received: str = moment((T0 - 10) / 1000).isoformat()) -> EventHistory:
    entry = JournalEntry(position=POSITION, event=EVENT, received=received, listener="http")
    return fold(EVENT.identity, POSITION, entry, lines, shared={})


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        ([], "waiting"),
        ([UNMATCHED], "unmatched"),
        ([JUDGED], "waiting"),
        ([JUDGED, CREATED], "running"),
        ([JUDGED, CREATED, state("RUNNING", 60)], "running"),
        ([JUDGED, CREATED, state("COMPLETED", 70)], "done"),
        ([JUDGED, CREATED, state("FAILED", 70)], "failed"),
        ([JUDGED, CREATED, state("CRASHED", 70)], "failed"),
        ([JUDGED, CREATED, state("CANCELLED", 70)], "cancelled"),
        ([JUDGED, ["g", T0 + 50, "signal-1", None, "applied"]], "done"),
        ([JUDGED, LETTER], "failed"),
        ([JUDGED, LETTER, CREATED, state("COMPLETED", 70)], "done"),
        ([JUDGED, LETTER, CREATED, state("FAILED", 70)], "failed"),
        ([JUDGED, CREATED, state("FAILED", 70), state("COMPLETED", 90)], "done"),
    ],
)
def test_the_outcome_in_a_word(lines: list[list[Any]], outcome: str) -> None:
    assert history(*lines).outcome == outcome


def test_a_letter_of_another_rule_is_a_failure_whatever_completed() -> None:
    found = history(JUDGED, ["d", T0, "l1", "ship", "refused", "no"], CREATED, state("COMPLETED", 70))
    assert found.failed
    assert found.reason == "no"


def test_states_are_in_the_order_of_their_times_and_the_last_one_counts() -> None:
    (run,) = history(JUDGED, CREATED, state("COMPLETED", 90), state("RUNNING", 60)).runs
    assert [one.type for one in run.states] == ["RUNNING", "COMPLETED"]
    assert run.state == "COMPLETED"


def test_the_reason_has_the_message_of_each_failed_run_and_each_letter() -> None:
    other = ["r", T0 + 50, "run-2", "ship", "flow/d"]
    found = history(
        JUDGED, CREATED, other, state("FAILED", 70, message="no money"), state("CRASHED", 70, "run-2"), LETTER
    )
    assert found.reason == "no money; Crashed; too large"
    assert history(JUDGED, CREATED, state("COMPLETED", 70, message="well")).reason == ""


def test_a_state_of_a_run_that_was_never_recorded_is_passed_over() -> None:
    assert history(JUDGED, state("FAILED", 70)).runs == []


def test_a_run_that_was_recorded_twice_is_one_run() -> None:
    later = [*CREATED]
    later[1] += 500
    (run,) = history(JUDGED, CREATED, later).runs
    assert run.created == moment((T0 + 50) / 1000)


def test_each_step_is_timed_between_what_is_known() -> None:
    found = history(JUDGED, CREATED, state("RUNNING", 80), state("COMPLETED", 180))
    assert found.timings_ms == {
        "received to journalled": 10,
        "journalled to routed": 20,
        "routed to run created": 30,
        "run created to run running": 30,
        "run running to run completed": 100,
    }
    unknown = history(JUDGED, received="yesterday")
    assert unknown.received is None
    assert unknown.timings_ms == {"journalled to routed": 20}


def test_a_replay_counts_and_the_latest_verdicts_are_shown() -> None:
    again = ["v", T0 + 900, POSITION, "v8", "", [[0, "pay", "when", "amount = 0"]]]
    found = history(JUDGED, again)
    assert (found.judged, found.rules_version, found.matched) == (2, "v8", [])
    assert found.routed == moment((T0 + 20) / 1000), "the first time is that of the ordinary path"


def test_shared_verdicts_and_own_ones_are_in_the_order_of_the_rules() -> None:
    line = ["v", T0, POSITION, "v7", "digest", [[1, "second"], [10, "eleventh"]]]
    shared = {"digest": [[2, "third", "type", "no"], [0, "first", "type", "no"]]}
    found = fold("e1@x", POSITION, None, [line], shared=shared)
    assert [one.rule for one in found.verdicts] == ["first", "second", "third", "eleventh"]
    assert found.matched == ["second", "eleventh"]


def test_an_event_that_the_journal_lost_keeps_its_id_and_its_lines() -> None:
    found = fold(EVENT.identity, POSITION, None, [JUDGED, CREATED], shared={})
    assert (found.id, found.source, found.event) == ("e1", None, None)
    assert found.row["type"] is None
    assert found.row["received"] == found.journalled == moment(T0 / 1000)


def test_the_row_of_a_listing_names_what_an_operator_looks_for() -> None:
    found = history(JUDGED, CREATED, state("FAILED", 70, message="no money"), LETTER)
    assert found.row == {
        "received": moment((T0 - 10) / 1000),
        "id": "e1",
        "type": "order.placed",
        "source": "shop",
        "subject": "s",
        "outcome": "failed",
        "reason": "no money; too large",
        "matched": ["pay"],
        "runs": [{"run_id": "run-1", "rule": "pay", "state": "FAILED"}],
        "dead": ["l1"],
    }


def test_changes_of_a_letter_are_kept_with_who_made_them() -> None:
    line = change_line("ann", "l1", [("data.amount", 1, None), ("data.note", None, "ü" * 900)])
    one, two = history(JUDGED, line).changes
    assert (one.by, one.letter, one.path, one.before, one.after) == ("ann", "l1", "data.amount", "1", None)
    assert two.before is None
    assert two.after is not None
    assert len(two.after) == 500, "a long value is cut"


def test_lines_that_another_version_wrote_change_nothing() -> None:
    assert history(JUDGED, ["z", 1], [], ["r", "too", "short"]) == history(JUDGED)


@pytest.mark.parametrize(
    "stored", [b"", b"{}", b"x\x9c", b"[1", packed(["v", "soon", POSITION, "v", "", []]), packed(["r", None, *"abc"])]
)
def test_what_no_part_of_sluice_writes_is_refused(stored: bytes) -> None:
    with pytest.raises(FAULTS):
        unpacked(stored)


def test_a_note_says_its_rule_and_its_words() -> None:
    (note,) = history(JUDGED, note_line("pay", "held")).notes
    assert (note.rule, note.text) == ("pay", "held")
