"""Approval links: whole, of this installation, and for the one wait."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.signals.approval_link import ApprovalLink, BadLink

SECRET = b"s" * 32
LINK = ApprovalLink("id", "run", "run wait", "schlüssel", "Ada", datetime.fromtimestamp(2_000_000_000, UTC))


def test_a_link_says_what_was_signed() -> None:
    assert ApprovalLink.parse(LINK.text(SECRET), SECRET) == LINK
    assert LINK.signal_id == "link-id"


@pytest.mark.parametrize("change", ["secret", "cut", "swapped", "empty", "not ascii"])
def test_a_link_that_was_changed_or_made_elsewhere_is_refused(change: str) -> None:
    text = LINK.text(SECRET)
    said, _, signature = text.partition(".")
    changed = {
        "secret": LINK.text(b"t" * 32),
        "cut": text[:-1],
        "swapped": f"{said[::-1]}.{signature}",
        "empty": "",
        "not ascii": f"{said}.ü\udcff",
    }[change]
    with pytest.raises(BadLink):
        ApprovalLink.parse(changed, SECRET)
