"""What Prefect shows of the installation: the documentation names every event, and the page survives any text."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from events.signal import Outcome
from services.common.reasons import reason
from services.operations.in_prefect.overview import Minute, Overview, bars, body, head
from services.operations.readiness import Readiness

NOW = datetime(2026, 12, 1, 1, 2, tzinfo=UTC)


def test_the_documentation_lists_every_event(checkout: Path) -> None:
    page = (checkout / "docs" / "prefect-ui.md").read_text()
    code = "".join(file.read_text() for file in (checkout / "services/operations/in_prefect").glob("*.py"))
    named = set(re.findall(r'"(sluice\.[a-z-]+\.[a-z-]+)"', code))
    named |= {"sluice.event.dispatched", *(f"sluice.signal.{outcome.value}" for outcome in Outcome)}
    shown = set(re.findall(r"`(sluice\.[a-z-]+\.[a-z-]+)`", page))
    for first, rest in re.findall(r"`(sluice\.[a-z-]+)\.[a-z-]+`((?:, `\.[a-z-]+`)+)", page):
        shown |= {f"{first}{more}" for more in re.findall(r"`(\.[a-z-]+)`", rest)}
    assert named <= shown, named - shown


def test_bars_are_as_high_as_their_share_of_the_most() -> None:
    assert bars([0, 1, 4, 8]) == " ▂▅█"
    assert bars([]) == ""


def test_the_page_tells_what_is_wrong_and_no_text_breaks_its_tables() -> None:
    readiness = Readiness((reason("watch-gone", "a|b\n# c is <gone>"),))
    overview = Overview(project="x|y", ui="http://ui", readiness=readiness, minutes=[Minute(3, 2, 4.0, 2), Minute()])
    assert head(overview, now=NOW) == "## Sluice: x\\|y\n\n**not ready** at 2026-12-01 01:02 UTC\n\n"
    text = body(overview, now=NOW)
    assert r"| a\|b\\n\# c is \<gone\> | bring the folder back" in text
    assert "| event to first line | 2.00 s on average | `█ ` |" in text
