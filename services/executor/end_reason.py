"""The states to which the executor sets a run that does not end by itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

FINALIZER_SECONDS: Final = 120.0
"""Time limit for the hooks of a crashed or cancelled run."""


class EndReason(StrEnum):
    """What the run is set to."""

    CRASHED = "crashed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed-out"
    HANDED_BACK = "handed-back"
    """Scheduled again, to start from its top here or elsewhere."""
    OVERTAKEN = "overtaken"
    """Somebody else ended, deleted or rescheduled the run, so its process is stopped and the run's state stays."""
    LOST = "lost"
    """Its machine or its slot ended: Crashed, or scheduled again where the deployment has ``on_lost: restart``."""
