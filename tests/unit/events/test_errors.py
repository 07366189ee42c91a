"""The errors: each kind of refusal has a name of its own."""

from __future__ import annotations

import re
from pathlib import Path

ABOUT_EVENTS = (
    "events/",
    "services/listeners/",
    "services/prefect_api/dispatch.py",
    "services/routing/dead_letter_replay.py",
)


def test_only_an_event_or_a_signal_is_a_rejected_event(checkout: Path) -> None:
    files = [file for room in ("config", "events", "services") for file in (checkout / room).rglob("*.py")]
    found = {str(file.relative_to(checkout)) for file in files if re.search(r"raise RejectedEvent\(", file.read_text())}
    assert found
    assert not [name for name in found if not name.startswith(ABOUT_EVENTS)]
