"""Files that wait: when to look again, and what to say of them."""

from __future__ import annotations

from services.common.file_version import Version
from services.listeners.files.arriving.completeness import (
    CHANGING,
    NO_MARKER,
    TEMPORARY,
    UNREADABLE,
    WRITER_OPEN,
    CompletenessWait,
)
from services.listeners.files.arriving.unready_files import UnreadyFiles

PRINT = (Version(1, 1, 1), 1)


def test_a_file_is_due_once_when_its_time_has_come() -> None:
    waiting = UnreadyFiles(limit=10)
    waiting.put(b"a", CompletenessWait(CHANGING, 2.0), 100.0, PRINT)
    assert waiting.next_at() == 102.0
    assert waiting.due(101.9, 10) == []
    assert waiting.due(102.0, 10) == [b"a"]
    assert waiting.due(102.0, 10) == []
    assert b"a" in waiting


def test_a_later_look_takes_the_place_of_an_earlier_one() -> None:
    waiting = UnreadyFiles(limit=10)
    waiting.put(b"a", CompletenessWait(CHANGING, 1.0), 100.0, PRINT)
    waiting.put(b"a", CompletenessWait(CHANGING, 5.0), 100.0, PRINT)
    assert waiting.due(101.0, 10) == []
    assert waiting.next_at() == 105.0


def test_a_dropped_file_is_due_no_more() -> None:
    waiting = UnreadyFiles(limit=10)
    waiting.put(b"a", CompletenessWait(CHANGING, 1.0), 100.0, PRINT)
    waiting.drop(b"a")
    assert waiting.next_at() is None
    assert waiting.due(200.0, 10) == []


def test_what_only_something_new_can_change_is_not_looked_at_by_itself() -> None:
    waiting = UnreadyFiles(limit=10)
    for number, reason in enumerate((TEMPORARY, NO_MARKER)):
        waiting.put(b"%d" % number, CompletenessWait(reason), 100.0)
    assert waiting.next_at() is None
    assert not waiting.scheduled(b"0")


def test_an_open_file_is_looked_at_often_at_first_and_at_least_twenty_times_a_second() -> None:
    waiting = UnreadyFiles(limit=10)
    now, looks = 100.0, []
    for _ in range(50):
        waiting.put(b"a", CompletenessWait(WRITER_OPEN), now, PRINT)
        at = waiting.next_at()
        assert at is not None
        looks.append(at - now)
        now = at
        waiting.due(now, 1)
    assert looks[0] <= 0.0101
    assert max(looks) <= 0.0501


def test_many_open_files_share_a_bounded_number_of_looks() -> None:
    waiting = UnreadyFiles(limit=10_000)
    for number in range(5000):
        waiting.put(b"%d" % number, CompletenessWait(WRITER_OPEN), 100.0, PRINT)
    waiting.put(b"0", CompletenessWait(WRITER_OPEN), 1000.0, PRINT)
    assert waiting.scheduled(b"0")
    waiting.due(1000.0, 10_000)
    assert waiting.next_at() is not None
    assert waiting.next_at() >= 1009.9


def test_unreadable_files_are_tried_again_by_themselves() -> None:
    waiting = UnreadyFiles(limit=10)
    waiting.put(b"a", CompletenessWait(UNREADABLE), 100.0)
    assert waiting.next_at() == 101.0


def test_how_long_a_file_is_unchanged_counts_from_its_last_change() -> None:
    waiting = UnreadyFiles(limit=10)
    changed = (Version(1, 2, 2), 2)
    assert waiting.past(b"a", PRINT, 100.0) == (0.0, False)
    waiting.put(b"a", CompletenessWait(CHANGING, 1.0), 100.0, PRINT)
    assert waiting.past(b"a", PRINT, 103.0) == (3.0, False)
    assert waiting.past(b"a", changed, 103.0) == (0.0, True)
    waiting.put(b"a", CompletenessWait(CHANGING, 1.0), 103.0, changed)
    assert waiting.past(b"a", changed, 104.0) == (1.0, True)


def test_only_so_many_are_followed() -> None:
    waiting = UnreadyFiles(limit=2)
    for number in range(5):
        waiting.put(b"%d" % number, CompletenessWait(TEMPORARY), 100.0)
    assert len(waiting) == 2


def test_a_file_is_overdue_once() -> None:
    waiting = UnreadyFiles(limit=10)
    waiting.put(b"a", CompletenessWait(TEMPORARY), 100.0)
    assert waiting.overdue(109.0, 10.0) == []
    ((path, entry),) = waiting.overdue(110.1, 10.0)
    assert (path, entry.reason) == (b"a", TEMPORARY)
    waiting.put(b"a", CompletenessWait(TEMPORARY), 111.0)
    assert waiting.overdue(200.0, 10.0) == []


def test_the_summary_counts_by_reason_and_names_the_oldest() -> None:
    waiting = UnreadyFiles(limit=100)
    for number in range(20):
        waiting.put(b"%02d" % number, CompletenessWait(TEMPORARY if number else WRITER_OPEN), 100.0 + number)
    waiting.put(b"caf\xe9\n", CompletenessWait(WRITER_OPEN), 99.0)
    summary = waiting.summary(130.0)
    assert summary["count"] == 21
    assert summary["for"] == {WRITER_OPEN: 2, TEMPORARY: 19}
    assert summary["oldest"][0] == {"file": "caf\ufffd\\n", "for": WRITER_OPEN, "seconds": 31.0}
    assert len(summary["oldest"]) == 10
