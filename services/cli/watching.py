"""Shows one thing again and again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_TO_THE_TOP = "\x1b[H\x1b[2J"
"""What clears a terminal's screen; what scrolled out of it before stays."""


def watched(show: Callable[[], T], *, every_seconds: float) -> T:
    """Show it until Ctrl-C, on a terminal each time from the top of the screen; returns what it returned last."""
    while True:
        if sys.stdout.isatty():
            print(_TO_THE_TOP, end="")
        last = show()
        sys.stdout.flush()
        try:
            time.sleep(every_seconds)
        except KeyboardInterrupt:
            return last
