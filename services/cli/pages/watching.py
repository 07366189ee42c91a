"""Shows one thing again and again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from services.cli.output import clear_screen

T = TypeVar("T")


def watched(show: Callable[[], T], *, every_seconds: float) -> T:
    """Show it until Ctrl-C, on a terminal each time from the top of the screen; returns what it returned last."""
    clear_screen()
    last = show()
    try:
        while True:
            sys.stdout.flush()
            time.sleep(every_seconds)
            clear_screen()
            last = show()
    except KeyboardInterrupt:
        return last
