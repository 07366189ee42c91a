"""`sluice top`: shows the installation on one screen, refreshed every few seconds."""

from __future__ import annotations

import asyncio
import select
import signal
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.live import Live

from config.settings import Settings, load_settings
from events.errors import ConfigError, SluiceError
from services.cli.pages.top import screen
from services.cli.session import open_session
from services.operations.status import read_status
from services.store.events.history import History, Query
from services.store.events.journal import Journal

_SAMPLES: Final = 30
"""Number of refreshes over which rates are computed."""

_FAILURES: Final = 8
"""Number of failed events shown."""


def top(
    every: Annotated[float, typer.Option("--every", min=0.5, help="Seconds between two refreshes.")] = 2.0,
) -> None:
    """Show rates, queues, slots, watched folders and the last failures on the whole screen, until q is pressed."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("top needs a terminal: `sluice status --watch` does without one")
    settings = load_settings()
    # Errors of the settings end the command before it takes the screen.
    asyncio.run(_look(settings, time.monotonic(), deque()))
    console = Console(highlight=False, markup=False, emoji=False)
    samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)
    with suppress(KeyboardInterrupt), _keys(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            found = asyncio.run(_look(settings, time.monotonic(), samples))
            live.update(screen(found, width=console.width), refresh=True)
            if _quits(every):
                return


async def _look(settings: Settings, now: float, samples: deque[tuple[float, int]]) -> dict[str, Any]:
    """Return the status, the rate of events and the last failed events; without Redis, only the status.

    ``samples`` are the times and totals of earlier refreshes; this one is added to them.
    """
    _, found = await read_status(settings)
    found |= {"events_per_second": None, "failures": []}
    with suppress(SluiceError):
        async with open_session() as session:
            samples.append((now, await Journal(session.redis, settings.journal).added()))
            (first_at, first), (last_at, last) = samples[0], samples[-1]
            if last_at > first_at:
                found["events_per_second"] = (last - first) / (last_at - first_at)
            history = History(session.redis, settings.history)
            found["failures"] = await history.search(Query(failed=True), limit=_FAILURES)
    return found


@contextmanager
def _keys() -> Iterator[None]:
    """Read keys one by one and without echo; afterwards the terminal is as before, after SIGTERM, too."""
    before = termios.tcgetattr(sys.stdin)
    ended = signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, ended)


def _quits(seconds: float) -> bool:
    """Wait for ``seconds``, or until q is pressed; return whether it was, or standard input has ended."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left)[0] and sys.stdin.read(1) in {"q", "Q", ""}:
            return True
    return False
