"""What becomes of a run that does not end by itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

FINALIZER_SECONDS: Final = 120.0
"""How long the hooks of a run that crashed or was cancelled may take."""


class EndReason(StrEnum):
    """What the run is to become."""

    CRASHED = "crashed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed-out"
    HANDED_BACK = "handed-back"
    """Scheduled again, to start from its top here or elsewhere."""
    OVERTAKEN = "overtaken"
    """Somebody else ended the run, deleted it or had it started again: there is nothing left for its process to do."""
    LOST = "lost"
    """Its machine or its slot went away: crashed, or scheduled again where the deployment says so."""
