"""What stands on the screen of `sluice top`."""

from __future__ import annotations

from rich.console import Console

from services.cli.pages.top import screen


def test_many_reasons_leave_room_for_what_moves() -> None:
    reasons = [{"message": f"role {name} is not ready: " + "no instance of it runs " * 9} for name in "abcdefg"]
    found = {
        "level": "not ready",
        "project": "shop",
        "home": "/home",
        "roles": {},
        "reasons": reasons,
        "backlog": {"journal": {"count": 7, "oldest_seconds": 3.0}},
        "failures": [],
        "events_per_second": 1.0,
    }
    console = Console(width=80, height=24)
    with console.capture() as captured:
        console.print(screen(found, width=80))
    lines = captured.get().splitlines()
    assert [line[:8] for line in lines[2:7]] == ["role a i", "role b i", "role c i", "and 4 mo", "what to "]
    assert any("journal" in line for line in lines[7:12])
