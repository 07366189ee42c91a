"""The keys in which signals are kept."""

from __future__ import annotations

from typing import Final

from services.store.keys import BUFFERED, SIGNAL, Key, is_number, is_text, is_uuid, scored
from services.store.signals.signal_record import Answered, record_from

RECORD: Final = SIGNAL

SEQUENCE: Final = "sluice:signals:sequence"
INDEX: Final = "sluice:signals:index"
"""Every known signal, by its place in the order of arrival."""

OPEN: Final = "sluice:signals:open"
"""The open signals, by the time (ms) at which a resumer must handle them again."""

TARGET: Final = "sluice:signals:for:"
"""Prefix of the open signals of one target, in order; ``run ID`` or ``key KEY`` follows."""

RUN: Final = "sluice:signals:run:"
"""Prefix of the signals that concerned one run, in order; the run's id follows."""

STAY: Final = "sluice:signals:stay:"
"""Prefix of the key with the signal last applied to one wait; the run's id, a blank and the wait's id follow."""

ANSWERED: Final = "sluice:signals:answered:"
"""Prefix of the waits for one key that were answered recently; the key follows."""

WAITED: Final = "sluice:signals:waited:"
"""Prefix of the runs that have waited for one key, by when their last wait for it began (ms); the key follows."""

LATELY: Final = "sluice:signals:lately:"
"""Prefix of the signals for one key that were applied recently, by when they came (ms); the key follows.

A run that waited at that time, and becomes known only now, gets them, too.
"""

BUSY: Final = "sluice:signals:busy:"
"""Prefix of the short leases; the leased thing follows."""

OUTBOX: Final = "sluice:signals:outbox"
"""A stream of the outcomes that are still to be published to Prefect, the history and the dead letters."""

TOLD: Final = "sluice:signals:told:"
"""Prefix of the channel on which an outcome is published for senders that wait; the signal's id follows."""


def stay_key(run_id: str, wait: str) -> str:
    """The key of the signal that was last applied to one wait of a run."""
    return f"{STAY}{run_id} {wait}"


KEYS: Final = (
    Key(
        RECORD + "*",
        "hash",
        "signal with its outcome",
        "resumer.retention_seconds after its outcome",
        record_from,
        whole=True,
    ),
    Key(SEQUENCE, "string", "number of signals so far", "for good", is_number),
    Key(INDEX, "zset", "id of a known signal", "resumer.max_records", scored()),
    Key(OPEN, "zset", "id of an open signal", "until its outcome", scored()),
    Key(BUFFERED, "zset", "id of a buffered signal", "until its outcome", scored()),
    Key(TARGET + "*", "zset", "id of an open signal for one run or key", "until its outcome", scored()),
    Key(RUN + "*", "zset", "id of a signal that had to do with a run", "resumer.retention_seconds", scored()),
    Key(STAY + "*", "string", "id of the signal applied to a wait", "resumer.retention_seconds", is_text),
    Key(ANSWERED + "*", "list", "wait for a key that was answered", "an hour", Answered.parse),
    Key(WAITED + "*", "zset", "id of a run that waited for a key", "resumer.retention_seconds", scored(is_uuid)),
    Key(LATELY + "*", "zset", "id of a signal applied to all that wait for a key", "an hour", scored()),
    Key(BUSY + "*", "string", "lease on a run", "resumer.lease_seconds"),
)
