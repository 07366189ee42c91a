"""When the process of a run is of no use any more."""

import time

from services.executor.pool.overtaken import OWN_SECONDS, Overtaken

LATE = {
    "state": "s-late",
    "occurred": "2026-11-30T10:00:15+00:00",
    "why": "now Late",
    "intent": "reschedule",
}
CLAIMED = {"claimed": {"step": "claimed", "since": "2026-11-30T10:00:20+00:00"}}


def heard(monkeypatch, *, occurred: str = LATE["occurred"]) -> Overtaken:
    overtaken = Overtaken()
    overtaken.hear({**LATE, "occurred": occurred})
    overtaken.hear({**LATE, "state": "another", "occurred": occurred})
    now = time.monotonic() + OWN_SECONDS + 1
    monkeypatch.setattr("services.executor.pool.overtaken.time.monotonic", lambda: now)
    return overtaken


def test_what_happens_before_the_process_has_claimed_the_run_does_not_end_it(monkeypatch):
    """Prefect marks a run as late while its process is starting; the claim decides who gets it."""
    overtaken = heard(monkeypatch)
    assert overtaken.verdict({}, [], proposing=False) is None
    assert overtaken.verdict(CLAIMED, [], proposing=False) is None


def test_what_happens_after_the_claim_ends_it(monkeypatch):
    overtaken = heard(monkeypatch, occurred="2026-11-30T10:00:21+00:00")
    assert overtaken.verdict(CLAIMED, [], proposing=False) == ("now Late", "reschedule")
    assert overtaken.verdict(CLAIMED, [], proposing=True) is None


def test_a_state_that_the_process_set_itself_does_not_end_it(monkeypatch):
    overtaken = heard(monkeypatch, occurred="2026-11-30T10:00:21+00:00")
    assert overtaken.verdict(CLAIMED, ["s-late", "another"], proposing=False) is None
